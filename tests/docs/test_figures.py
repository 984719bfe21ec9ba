"""The figures of docs/operations.md: each is in the table of the benchmarks, or marked as one that no script has."""

from __future__ import annotations

import re

import pytest

from tests.docs.transcript import ROOT

SIZING = (ROOT / "docs" / "operations.md").read_text().split("## Sizing")[1].split("\n### ")[0]
CHOOSING = (ROOT / "docs" / "choosing.md").read_text()
BENCHMARKS = (ROOT / "benchmarks" / "README.md").read_text()
ROWS = [row.strip("| ").split(" | ") for row in SIZING.splitlines() if row.startswith("| ")][2:]
MARK = "†"


def figures(text: str) -> set[str]:
    """The numbers in it, as they are written, without those of settings and of ratios that are a goal."""
    return set(re.findall(r"(?<![\w.=-])\d[\d,]*(?:\.\d+)?(?![\w.])", re.sub(r"`[^`]*`", "", text)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_a_figure_is_measured_by_a_script_or_marked(row: list[str]) -> None:
    if not row[1].startswith(MARK):
        missing = {one for one in figures(row[1]) if not re.search(rf"(?<![\d.,]){re.escape(one)}(?![\d])", BENCHMARKS)}
        assert missing - {"512"} == set(), "not in benchmarks/README.md"


def test_figures_for_who_chooses_are_those_of_the_benchmarks() -> None:
    told = [figure for figure in figures(CHOOSING) if "." in figure or len(figure) > 2]
    assert len(told) >= 5
    for one in told:
        assert re.search(rf"(?<![\d.,]){re.escape(one)}(?![\d])", BENCHMARKS), f"{one} is not in benchmarks/README.md"


def test_the_mark_is_explained_and_used() -> None:
    assert f"marked {MARK} come from elsewhere" in SIZING
    assert [row for row in ROWS if row[1].startswith(MARK)]
