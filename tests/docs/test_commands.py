"""Every command that these pages show, typed into a terminal, and what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.transcript import ROOT, Desk, difference, steps_of


@pytest.mark.acceptance
@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/quickstart.md", "docs/access.md", "docs/functions.md", "docs/http.md", "docs/operations.md"],
)
def test_a_page_does_what_it_shows(page: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    try:
        for step in steps_of(ROOT / page):
            if step.own_terminal:
                printed = desk.leave_running(step.command, step.expected[-1]).printed
            else:
                printed = desk.run(step.command)
            problem = difference(step.expected, printed)
            assert problem is None, f"{page}: $ {step.command}\n{problem}"
    finally:
        desk.close()


def test_a_difference_is_noticed() -> None:
    assert difference(["a … c", "…", "z"], "a b c\nx\ny\nz\n") is None
    assert difference(["a … c", "…", "z"], "a b c\nz\n") is None
    assert difference(["a"], "a\nb\n") is not None
    assert difference(["a", "b"], "a\n") is not None
    assert difference(["a.c"], "abc\n") is not None
    assert difference([], "anything\n") is not None
