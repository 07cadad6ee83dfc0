"""`style` and `texture` as functions: facts, pictures, frames, going on from what `save` was given."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from phosphene import images
from phosphene.errors import PhospheneError
from phosphene.jobs import job
from phosphene.jobs import style_parts as parts
from phosphene.jobs.outcome import Outcome
from phosphene.jobs.workshop import Workshop
from phosphene.progress import Brake, Event, Started, Step, braked, run
from phosphene.synthesize.style import Checkpoint

NET = """
import torch
from torch import nn

def tiny():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(12, 16, 3, padding=1), nn.Tanh(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )
"""
VERBS = ("style", "texture")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("style")
    (folder / "net.py").write_text(NET)
    for seed, name in enumerate(("photo", "manner", "other")):
        coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
        images.save(images.resize(coarse, (72, 96))[0].clamp(0, 1), folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def workshop() -> Workshop:
    return Workshop("cpu")


def make(workshop: Workshop, folder: Path, verb: str, brake: int | None = None, **options: Any) -> Outcome:
    usual: dict[str, Any] = {
        "image": str(folder / "photo.png"), "net": f"{folder / 'net.py'}:tiny", "style_layers": ["1", "4"],
        "canvas": "fourier", "steps": 6, "scales": 2,
    }  # fmt: skip
    if verb == "style":
        usual |= {"styles": [str(folder / "manner.png")], "content_layers": ["4"]}
    return run(braked(job(verb, workshop.fresh(), {**usual, **options}), Brake(brake)))


@pytest.mark.parametrize("verb", VERBS)
def test_what_save_was_given_goes_on_to_the_same_picture(workshop: Workshop, folder: Path, verb: str) -> None:
    whole = make(workshop, folder, verb)
    for brake in (3, 7, 8, 11):  # the 7th event ends the first size
        kept: list[bytes] = []

        def save(checkpoint: Checkpoint, kept: list[bytes] = kept) -> None:
            buffer = io.BytesIO()
            torch.save(parts.packed(checkpoint), buffer)
            kept.append(buffer.getvalue())

        part = make(workshop, folder, verb, brake, save=save)
        assert part.notes["stopped_at_step"] == brake - 1 == part.facts["steps"]
        assert "stopped early" in part.facts["stopped"]
        assert not torch.equal(part.pictures[0].image, whole.pictures[0].image)
        assert len(kept) == brake  # after each step, and at the end
        for held in (kept[-1], kept[-2]):
            resume = torch.load(io.BytesIO(held), weights_only=True)
            done = make(workshop, folder, verb, resume=resume)
            assert torch.equal(done.pictures[0].image, whole.pictures[0].image)
            assert "stopped" not in done.facts and done.notes == whole.notes


@pytest.mark.parametrize("held", [{}, {"scale": 0}, {"scale": 0, "picture": None, "progress": {"unknown": 1}}])
def test_what_is_no_checkpoint_is_refused(workshop: Workshop, folder: Path, held: dict[str, Any]) -> None:
    with pytest.raises(PhospheneError, match="no unfinished picture of this version"):
        make(workshop, folder, "style", resume=held)


@pytest.mark.parametrize("verb", VERBS)
def test_frames_have_one_size_and_end_with_the_picture(workshop: Workshop, folder: Path, verb: str) -> None:
    frames: list[Tensor] = []
    outcome = make(workshop, folder, verb, keep=frames.append, steps=10)
    assert len(frames) == 4 and {tuple(frame.shape) for frame in frames} == {(3, 72, 96)}
    far = [float((frame - outcome.pictures[0].image).abs().mean()) for frame in frames]
    assert far[0] > far[-2] and far[-1] < 0.05 and all(frame.min() >= 0 and frame.max() <= 1 for frame in frames)


@pytest.mark.parametrize("verb", VERBS)
def test_steps_are_counted_over_all_sizes(workshop: Workshop, folder: Path, verb: str) -> None:
    events: list[Event] = []
    options = {"image": str(folder / "photo.png"), "net": f"{folder / 'net.py'}:tiny", "steps": 4, "scales": 2}
    outcome = run(job(verb, workshop.fresh(), options), events.append)
    steps = [event.done for event in events if isinstance(event, Step)]
    started = [event for event in events if isinstance(event, Started)]
    assert steps == list(range(1, 9)) and started[0].total == 8 and started[0].keeps
    assert outcome.facts["steps"] == 8 and outcome.facts["sizes"] == [[36, 48], [72, 96]]


def test_the_facts_of_a_style_fit_its_losses(workshop: Workshop, folder: Path) -> None:
    facts = make(workshop, folder, "style", scales=1, steps=30, content_weight=2.0, style_weight=10.0).facts
    weights, losses, content = facts["layer_weights"], facts["style_losses"], facts["content_losses"]
    begun = sum(weights[layer] * before for layer, (before, _) in losses.items())
    assert begun == pytest.approx(10, rel=1e-4) and facts["totals"][0][0] == pytest.approx(10, rel=1e-3)
    end = sum(weights[layer] * now for layer, (_, now) in losses.items())
    end += sum(2 * now / grey for grey, now in content.values())
    assert end < 0.6 * begun and end == pytest.approx(facts["totals"][0][1], rel=0.2)


def test_a_sheet_has_a_picture_for_each_content_and_style(workshop: Workshop, folder: Path) -> None:
    manner, other = (str(folder / f"{name}.png") for name in ("manner", "other"))
    outcome = make(workshop, folder, "style", contents=[other], styles=[manner, "sample:brick"], each=True, steps=2)
    assert [picture.name for picture in outcome.pictures] == [
        "style", "photo-in-manner", "photo-in-brick", "other-in-manner", "other-in-brick"
    ]  # fmt: skip
    assert outcome.facts["styles"] == ["manner", "brick"]
    alone = make(workshop, folder, "style", image=other, styles=[manner], steps=2)
    assert torch.equal(outcome.picture("other-in-manner").image, alone.pictures[0].image)
    assert not torch.equal(outcome.picture("photo-in-manner").image, outcome.picture("other-in-manner").image)


@pytest.mark.parametrize(
    ("text", "size"), [("64", (64, 64)), ("80x40", (40, 80)), ("80X40", (40, 80)), (None, (72, 96))]
)
def test_sizes_of_textures(workshop: Workshop, folder: Path, text: str | None, size: tuple[int, int]) -> None:
    outcome = make(workshop, folder, "texture", size=text, steps=1, scales=1)
    assert outcome.pictures[0].image.shape == (3, *size)
