"""The twelve places of the path: nothing happens there, unless a test asked for an end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trigger.moments import Moment, Moments

ROOT = Path(__file__).parents[2]


def test_there_are_the_twelve_places_that_the_documents_name() -> None:
    assert [str(moment) for moment in Moment] == [
        "event-stored", "record-written", "some-runs-written", "event-acked", "run-delivered", "before-start",
        "started", "output-stored", "verdict-stored", "reply-sent", "next-published", "run-acked",
    ]  # fmt: skip
    documented = (ROOT / "docs" / "custody.md").read_text()
    assert all(f"`{moment}`" in documented for moment in Moment)


@pytest.mark.parametrize("text", [None, ""])
def test_in_production_nothing_happens(text: str | None) -> None:
    moments = Moments.parse(text, None)
    for moment in Moment:
        moments.reached(moment)


def test_a_name_and_a_count() -> None:
    assert Moments.parse("started", None) == Moments(Moment.STARTED, 1, None)
    assert Moments.parse("started:3", Path("p")) == Moments(Moment.STARTED, 3, Path("p"))


@pytest.mark.parametrize("text", ["nowhere", "started:x", ":2", "started:0x1"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a valid Moment|invalid literal"):
        Moments.parse(text, None)


@pytest.mark.parametrize("nth", [1, 3])
def test_the_process_dies_there_and_leaves_a_proof(nth: int, tmp_path: Path) -> None:
    proof, survived = tmp_path / "proof", tmp_path / "survived"
    program = f"""
from pathlib import Path
from trigger.moments import Moment, Moments
moments = Moments.parse("started:{nth}", Path({str(proof)!r}))
for number in range(5):
    moments.reached(Moment.RUN_ACKED)
    moments.reached(Moment.STARTED)
    Path({str(survived)!r}).write_text(str(number + 1))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert proof.read_text().split()[:2] == ["started", str(nth)]
    assert (survived.read_text() if survived.exists() else "0") == str(nth - 1)
