"""Rows that survive: what a run that was killed at any moment has left is found again, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from phosphene import processes
from phosphene.cli.journal import Journal, lines
from phosphene.errors import OutputError


def row(key: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "value": f"of {key}", **more}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def test_rows_are_appended_at_once_and_found_again(path: Path) -> None:
    journal = Journal(path, "p", False)
    assert journal.known == {} and not path.exists()  # nothing is written before there is something
    journal.keep([row("a"), row("b")])
    assert read(path) == [{"plan": "p", **row("a")}, {"plan": "p", **row("b")}]
    journal.keep([row("c")])
    assert list(Journal(path, "p", False).known) == ["a", "b", "c"]
    assert Journal(path, "p", False).known["b"]["value"] == "of b"


def test_the_last_row_of_a_key_counts(path: Path) -> None:
    journal = Journal(path, "p", False)
    journal.keep([row("a", turn=1)])
    journal.keep([row("a", turn=2)])
    assert Journal(path, "p", False).known["a"]["turn"] == 2


def test_a_torn_line_is_left_out_and_what_follows_stands_on_a_line_of_its_own(path: Path) -> None:
    Journal(path, "p", False).keep([row("a"), row("b")])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):  # killed after any byte of the second row
        path.write_bytes(whole[:length])
        journal = Journal(path, "p", False)
        assert list(journal.known) == (["a"] if length < len(whole) - 1 else ["a", "b"])
        journal.keep([row("c")])
        journal.keep([row("d")])
        assert list(Journal(path, "p", False).known) == [*journal.known, "c", "d"]


def test_a_row_torn_in_its_middle_and_appended_to_is_still_left_out(path: Path) -> None:
    Journal(path, "p", False).keep([row("a"), row("b")])
    path.write_bytes(path.read_bytes()[:-9])
    for key in "cd":
        Journal(path, "p", False).keep([row(key)])
    assert list(Journal(path, "p", False).known) == ["a", "c", "d"]


@pytest.mark.parametrize("left", [b"", b'{"plan": "p", "ke'])
def test_a_run_that_was_killed_while_it_wrote_its_first_row_goes_on(path: Path, left: bytes) -> None:
    path.write_bytes(left)
    journal = Journal(path, "p", False)
    journal.keep([row("a")])
    assert list(Journal(path, "p", False).known) == ["a"]


def test_rows_of_another_plan_stay_unless_told_otherwise(path: Path) -> None:
    Journal(path, "p", False).keep([row("a")])
    before = path.read_bytes()
    with pytest.raises(
        OutputError, match=r"rows\.jsonl' holds what was made otherwise, which is kept: give --overwrite"
    ):
        Journal(path, "q", False)
    journal = Journal(path, "q", True)
    assert journal.known == {} and path.read_bytes() == before  # until there is something to put in their place
    journal.keep([row("b")])
    assert read(path) == [{"plan": "q", **row("b")}]
    journal.keep([row("c")])
    assert [one["key"] for one in read(path)] == ["b", "c"]


def test_of_two_plans_in_a_file_the_other_one_goes(path: Path) -> None:
    Journal(path, "p", False).keep([row("a")])
    with path.open("a") as file:
        file.write(json.dumps({"plan": "q", **row("b")}) + "\n")
    with pytest.raises(OutputError):
        Journal(path, "p", False)
    journal = Journal(path, "p", True)
    assert list(journal.known) == ["a"]
    journal.keep([row("c")])
    assert [(one["plan"], one["key"]) for one in read(path)] == [("p", "a"), ("p", "c")]


@pytest.mark.parametrize("data", [b"my notes\n", b"\xff\xfe\x00\x81" * 9, b'["a"]\n3\nnull\n', b'{"mine": 1}\n'])
def test_a_file_of_somebody_else_is_kept(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(OutputError, match="give --overwrite"):
        Journal(path, "p", False)
    assert path.read_bytes() == data
    Journal(path, "p", True).keep([row("a")])
    assert [one["key"] for one in read(path)] == ["a"]


def test_finish_puts_rows_in_order_and_keeps_those_that_were_not_asked_for(path: Path) -> None:
    Journal(path, "p", False).keep([row("c"), row("x"), row("a")])
    journal = Journal(path, "p", False)
    journal.keep([row("b")])
    journal.finish([row("a"), row("b"), row("c")])
    assert [one["key"] for one in read(path)] == ["a", "b", "c", "x"]
    assert {one["plan"] for one in read(path)} == {"p"} and path.read_bytes().endswith(b"\n")
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.jsonl"]


def test_finish_equals_that_of_a_run_without_interruption(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    whole = Journal(other, "p", False)
    whole.keep([row("a"), row("b")])
    whole.finish([row("a"), row("b")])
    Journal(path, "p", False).keep([row("b")])
    torn = Journal(path, "p", False)
    torn.keep([row("a")])
    torn.finish([row("a"), torn.known["b"]])
    assert path.read_bytes() == other.read_bytes()


def test_each_process_has_a_file_of_its_own_until_the_first_finishes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path.parent / "rows.other.jsonl").write_text("mine\n")
    journals = []
    for rank in range(3):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        journals.append(Journal(path, "p", False))
    for rank, journal in enumerate(journals):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        journal.keep([row(f"{rank}")])
    names = {entry.name for entry in path.parent.iterdir()}
    assert names == {"rows.jsonl", "rows.1.part.jsonl", "rows.2.part.jsonl", "rows.other.jsonl"}
    (path.parent / "rows.2.part.jsonl").open("a").write('{"plan": "p", "key": "tor')
    monkeypatch.setattr(processes, "rank", lambda: 0)
    alone = Journal(path, "p", False)  # the next run, whether of one process or several, knows what all have made
    assert list(alone.known) == ["0", "1", "2"]
    with pytest.raises(OutputError):
        Journal(path, "q", False)
    alone.finish([row(key) for key in "012"])
    assert [one["key"] for one in read(path)] == ["0", "1", "2"]
    assert {entry.name for entry in path.parent.iterdir()} == {"rows.jsonl", "rows.other.jsonl"}


def test_lines_of_a_file_that_is_not_there(path: Path) -> None:
    assert lines(path) == []
    path.mkdir()
    assert lines(path) == []
