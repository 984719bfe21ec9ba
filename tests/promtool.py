"""Prometheus' own tool, and Prometheus itself, where they can be had: they judge metrics, rules and queries."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.skips import without

UNPACKED = Path(__file__).parents[1] / "build" / "prometheus"
"""Where `scripts/fetch-prometheus` puts the programs."""


def program(name: str) -> str:
    """The program of that name; without one the test is skipped, or fails where INVOKER_REQUIRE_PROMETHEUS is set."""
    found = shutil.which(name) or shutil.which(name, path=str(UNPACKED))
    if found is None:
        without(f"there is no {name} here (scripts/fetch-prometheus)", needed_if="INVOKER_REQUIRE_PROMETHEUS")
    return found


def promtool(*arguments: str, text: str | None = None) -> str:
    """What promtool says about it; fails the test when it finds anything wrong."""
    ended = subprocess.run(
        [program("promtool"), *arguments], input=text, capture_output=True, text=True, timeout=240, check=False
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    return said
