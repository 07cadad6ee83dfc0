"""Processes that share a job: which chunks are whose, what is merged, and one process as if there were no others."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phosphene import device, processes
from phosphene.errors import PhospheneError
from phosphene.observe.patches import _Best

OURS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        monkeypatch.delenv(name, raising=False)


def launched(patch: pytest.MonkeyPatch, world: int, rank: int) -> None:
    patch.setenv("WORLD_SIZE", str(world))
    patch.setenv("RANK", str(rank))
    patch.setenv("LOCAL_RANK", str(rank))


@given(total=st.integers(0, 60), together=st.integers(1, 9), world=st.integers(1, 5))
def test_each_thing_is_done_once_in_the_chunks_of_one_process(total: int, together: int, world: int) -> None:
    whole = processes.mine(total, together)
    assert [place for chunk in whole for place in chunk] == list(range(total))
    assert all(len(chunk) == together for chunk in whole[:-1])
    shares = []
    for rank in range(world):
        with pytest.MonkeyPatch.context() as patch:
            launched(patch, world, rank)
            shares.append(processes.mine(total, together))
    assert sorted((chunk for share in shares for chunk in share), key=lambda chunk: chunk.start) == whole
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_chunks_hold_something() -> None:
    with pytest.raises(ValueError, match="chunks of 0"):
        processes.mine(3, 0)


def test_one_process_is_by_itself() -> None:
    processes.begin()
    processes.wait()
    processes.leave()
    assert (processes.count(), processes.rank(), processes.first(), processes.tells()) == (1, 0, True, True)
    part = {3: "c", 1: "a"}
    assert processes.gather(part) == [part] and processes.gather(part)[0] is part
    assert list(processes.merged(part)) == [1, 3]
    assert processes.total([0.1, 2]) == [0.1, 2.0] and processes.total([]) == []
    assert not torch.distributed.is_initialized()


def test_merged_sorts_what_all_have_found_and_refuses_work_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "gather", lambda part: [part, {0: "x", 9: "y"}, {}])
    assert list(processes.merged({5: "a", 2: "b"}).items()) == [(0, "x"), (2, "b"), (5, "a"), (9, "y")]
    with pytest.raises(PhospheneError, match="the same work"):
        processes.merged({9: "a"})


def test_sums_are_of_all_processes_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "gather", lambda part: [part, [1e-12, 3]])
    assert processes.total([1, 2]) == [1 + 1e-12, 5.0]


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "two"), ("WORLD_SIZE", "-1"), ("RANK", "1.5")])
def test_numbers_that_are_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(PhospheneError, match=f"{name} is '{value}'"):
        processes.mine(3, 1)


def test_processes_without_an_address_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, 2, 0)
    with pytest.raises(PhospheneError, match=r"MASTER_ADDR is not set.*torchrun") as problem:
        monkeypatch.setenv("MASTER_PORT", "29500")
        processes.begin()
    assert "\n" not in str(problem.value) and processes.tells()


def test_importing_them_imports_no_torch() -> None:
    code = "import sys, phosphene.processes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "WORLD_SIZE": "2"}).returncode == 0


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.pick("auto") == device.pick("cuda") == torch.device("cuda")
    for rank, gpu in ((0, 0), (1, 1), (2, 0)):
        launched(monkeypatch, 3, rank)
        assert device.pick("auto") == device.pick("cuda") == torch.device("cuda", gpu)
        assert device.pick("cuda:1") == torch.device("cuda", 1) and device.pick("cpu") == torch.device("cpu")


@given(
    values=st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=12),
    world=st.integers(1, 3),
    count=st.integers(1, 4),
)
def test_the_best_patches_of_all_processes_are_those_of_one(values: Any, world: int, count: int) -> None:
    """Also where activations are equal: the first image's is kept."""
    maps = torch.tensor(values, dtype=torch.float32).reshape(-1, 2, 1, 2)  # two channels of two places
    alone = _Best([0, 1], count)
    shares = [_Best([0, 1], count) for _ in range(world)]
    for chunk, start in enumerate(range(0, len(maps), 2)):
        places = list(range(start, min(start + 2, len(maps))))
        for best in (alone, shares[chunk % world]):
            best.add(places, maps[places])
    parts = [(best.values, best.images, best.positions, best.least) for best in shares]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "gather", lambda part: parts)
        shares[0].gather()
    assert shares[0].rows() == alone.rows()
