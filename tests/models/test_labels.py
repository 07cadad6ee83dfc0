from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phosphene.errors import LabelError
from phosphene.models import labels as module
from phosphene.models.labels import Labels

IMAGENET = Labels.imagenet()
indices = st.integers(0, 999)


def refusal(labels: Labels, query: object) -> str:
    with pytest.raises(LabelError) as caught:
        labels.resolve(query)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_imagenet_has_a_thousand_distinct_classes_and_is_read_once():
    assert len(IMAGENET) == len(set(IMAGENET)) == 1000
    assert Labels.imagenet() is IMAGENET
    assert (IMAGENET[0], IMAGENET[-1], IMAGENET[207]) == ("tench", "toilet tissue", "golden retriever")


def test_every_display_name_synset_and_index_resolves_to_itself():
    for index, name in enumerate(IMAGENET):
        assert IMAGENET.resolve(name) == index
        assert IMAGENET.resolve(IMAGENET.synset(index) or "") == index
        assert IMAGENET.resolve(index) == IMAGENET.resolve(str(index)) == index


def test_every_alias_resolves_to_its_class_or_says_that_it_is_shared():
    for index in range(1000):
        for alias in IMAGENET.aliases(index):
            try:
                found = IMAGENET.resolve(alias)
            except LabelError as ambiguous:
                assert f"{index} {IMAGENET[index]}" in str(ambiguous)
            else:
                # A display name goes before an alias: skunks are called polecats too.
                assert found == index or IMAGENET[found].casefold() == alias.casefold()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("black swan", 100), ("swan", 100), ("beach wagon", 436), ("station wagon", 436),
        ("pool table", 736), ("billiard table", 736), ("hartebeest", 351), ("espresso", 967),
        ("espresso maker", 550), ("iPod", 605), ("ipod", 605), ("koala", 105), ("African elephant", 386),
        ("schooner", 780), ("schoone", 780), ("crane bird", 134), ("CRANE (machine)", 517),
        ("tank suit", 639), ("jack o lantern", 607), ("jack-o’-lantern", 607), ("carpenters kit", 477),
        ("N02099601", 207), (" 207 ", 207), ("golden", 207), ("missile", 657), ("cardigan sweater", 474),
        ("Cardigan Welsh corgi", 264), ("sunglasses", 837),
    ],
)  # fmt: skip
def test_a_class_can_be_asked_for_in_many_ways(query: str, index: int):
    assert IMAGENET.resolve(query) == index


@given(
    indices,
    st.sampled_from([str.upper, str.lower, str.title, str.swapcase]),
    st.sampled_from([" ", "-", "_", "  "]),
)
def test_case_and_separators_do_not_matter(index: int, change, separator: str):
    written = separator.join(change(IMAGENET[index]).split(" "))
    assert IMAGENET.resolve(f" {written} ") == index


@given(st.lists(st.text(min_size=1), min_size=1, max_size=8, unique=True))
def test_any_list_of_distinct_names_resolves_to_itself(names: list[str]):
    labels = Labels(names)
    assert [labels.resolve(name) for name in names] == list(range(len(names)))


@given(st.text())
def test_any_text_resolves_or_is_refused_in_words(query: str):
    with contextlib.suppress(LabelError):
        assert 0 <= IMAGENET.resolve(query) < 1000


def test_an_ambiguous_name_lists_its_candidates_with_their_indices():
    assert refusal(IMAGENET, "crane") == (
        "'crane' may mean 2 classes: 134 crane (bird), 517 crane (machine); give the index or the whole name"
    )
    assert "264 Cardigan Welsh corgi, 474 cardigan (sweater)" in refusal(IMAGENET, "cardigan")
    assert "638 maillot (tights), 639 maillot (tank suit)" in refusal(IMAGENET, "maillot")


def test_at_most_six_candidates_are_listed():
    message = refusal(IMAGENET, "terrier")
    assert "182 Border terrier and 18 more;" in message
    assert message.count(",") == 5


def test_an_unknown_name_gets_the_nearest_ones():
    assert "did you mean golden retriever" in refusal(IMAGENET, "goldn retriver")
    assert refusal(IMAGENET, "xyzzy") == "no class is called 'xyzzy'"
    assert "no class is called ''" in refusal(IMAGENET, "")
    assert "no class is called" in refusal(IMAGENET, "'-'")


@pytest.mark.parametrize("query", [1000, "1000", -1, "-1", 10**8])
def test_an_index_out_of_range_says_the_range(query: str | int):
    assert refusal(IMAGENET, query) == f"no class has index {query}: the 1000 classes are 0 to 999"


@pytest.mark.parametrize("query", [True, 3.0, None])
def test_what_is_neither_index_nor_name_is_refused(query: object):
    assert "by its index or name" in refusal(IMAGENET, query)


def test_generic_labels_are_numbered():
    labels = Labels.generic(10)
    assert list(labels) == [f"class {index}" for index in range(10)]
    assert labels.resolve("7") == labels.resolve("class 7") == labels.resolve("Class-7") == 7
    assert labels.synset(3) is None
    assert labels.aliases(3) == ()
    assert "may mean 10 classes" in refusal(labels, "class")
    with pytest.raises(LabelError, match="at least one class, not 0"):
        Labels.generic(0)


def test_a_class_that_is_called_like_a_number_goes_before_the_index():
    labels = Labels(["0", "1", "10", "2"])
    assert labels.resolve("10") == 2
    assert labels.resolve("2") == 3
    assert labels.resolve(2) == 2
    assert labels.resolve("3") == 3


def test_names_that_differ_in_case_only_are_told_apart():
    labels = Labels(["Ants", "ants"])
    assert (labels.resolve("Ants"), labels.resolve("ants")) == (0, 1)
    assert "may mean 2 classes: 0 Ants, 1 ants" in refusal(labels, "ANTS")


def test_own_synsets_and_aliases():
    labels = Labels(["cat", "dog"], synsets=["n1", "n2"], aliases=[["felis", "Crêpe"], []])
    assert labels.resolve("Felis") == labels.resolve("crepe") == labels.resolve("n1") == 0
    assert labels.synset(1) == "n2"
    assert labels.aliases(0) == ("felis", "Crêpe")
    assert labels == Labels(["cat", "dog"], ["n1", "n2"], [["felis", "Crêpe"], []])
    assert labels != Labels(["cat", "dog"])
    assert "did you mean felis" in refusal(labels, "feliss")


@pytest.mark.parametrize("method", ["name", "synset", "aliases"])
def test_looking_up_checks_the_index(method: str):
    with pytest.raises(LabelError, match="no class has index 2: the 2 classes are 0 to 1"):
        getattr(Labels(["a", "b"], ["n1", "n2"], [[], []]), method)(2)
    assert IMAGENET.name(100) == "black swan"


def test_lengths_must_agree():
    with pytest.raises(LabelError, match="there are 1 synset ids for 2 class names"):
        Labels(["a", "b"], synsets=["n1"])
    with pytest.raises(LabelError, match="there are 3 lists of aliases for 2 class names"):
        Labels(["a", "b"], aliases=[[], [], []])
    with pytest.raises(LabelError, match="needs at least one name"):
        Labels([])


def test_it_is_a_sequence():
    assert Labels(["a", "b", "c"])[1:] == ("b", "c")
    assert repr(Labels(["a", "b"])) == "Labels(2 classes: a, b)"
    assert "koala" in IMAGENET


def test_it_works_without_torch():
    code = (
        "import sys, importlib.util as u; sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        f"spec = u.spec_from_file_location('labels', {module.__file__!r})\n"
        "labels = u.module_from_spec(spec); spec.loader.exec_module(labels)\n"
        "print(labels.Labels.imagenet().resolve('koala'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "105", done.stderr
