"""Every CNN is explained rightly or refused: each method on many architectures against a slow one in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
from architectures import ARCHITECTURES, COLUMNS, REFERENCES, Architecture, cells, findings

from phosphene.explain import METHODS

TABLE = Path(__file__).parents[2] / "docs" / "support.md"


def documented() -> dict[str, list[str]]:
    """The rows of the table in the docs: a network's cells by its name."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(one, id=one.name, marks=pytest.mark.slow if one.slow else ()) for one in ARCHITECTURES],
)
def test_each_method_equals_its_slow_reference_or_says_what_it_has_no_rule_for(architecture: Architecture) -> None:
    found = findings(architecture)
    wrong = {finding.method: finding.error for finding in found if not finding.fine}
    assert not wrong, f"{architecture.name} is explained wrongly, relative errors: {wrong}"
    supported = ["✓" in cell for cell in documented()[architecture.name][1:]]
    assert supported == ["✓" in cell for cell in cells(found)], "run tools/make_support_table.py"


def test_the_table_in_the_docs_has_a_row_for_each_network_and_a_column_for_each_method() -> None:
    rows = documented()
    assert list(rows) == [one.name for one in ARCHITECTURES], "run tools/make_support_table.py"
    assert all(len(row) == 1 + len(COLUMNS) for row in rows.values())
    assert [row[0] for row in rows.values()] == [str(one.size) for one in ARCHITECTURES]
    assert sorted(method for methods in COLUMNS.values() for method in methods) == sorted(METHODS) == sorted(REFERENCES)


def test_at_least_forty_networks_are_tried_each_time() -> None:
    assert sum(not one.slow for one in ARCHITECTURES) >= 40
