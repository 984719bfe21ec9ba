"""A test that fails while its limit passes is told as that, and the tests after it run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = """
import time
import pytest

@pytest.mark.timeout(1)
def test_that_fails_late():
    __tracebackhide__ = lambda failure: time.sleep(1.5)  # asked while the report is made
    assert False, "its own failure"

@pytest.mark.timeout(1)
def test_that_hangs():
    time.sleep(60)

def test_after_them():
    pass
"""


def test_the_limit_of_a_test_never_ends_the_session(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.timeouts", "-W", "error", "-p", "no:asyncio", "test_it.py"]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert "2 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "its own failure" in done.stdout
    assert "Timeout (>1.0s)" in done.stdout
