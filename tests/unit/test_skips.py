"""The rule that CI skips nothing, tried on a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import is_refused

ROOT = Path(__file__).parents[2]
CONFTEST = "from tests.skips import pytest_make_collect_report, pytest_runtest_makereport"
SUITE = """
import pytest

def test_done(): pass

@pytest.mark.skip(reason="needs a thing")
def test_marked(): pass

def test_inside(): pytest.skip("needs another thing")

@pytest.mark.xfail(reason="known")
def test_expected_to_fail(): assert False
"""


def run_suite(folder: Path, text: str, ci: str | None) -> str:
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_inner.py").write_text(text)
    environ = {key: value for key, value in os.environ.items() if key not in ("CI", "PYTEST_XDIST_WORKER")}
    environ |= {"PYTHONPATH": str(ROOT)} | ({"CI": ci} if ci else {})
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", str(folder)]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False).stdout


def test_a_skip_is_a_skip_for_an_ordinary_user(tmp_path: Path) -> None:
    said = run_suite(tmp_path, SUITE, None)
    assert "1 passed, 2 skipped, 1 xfailed" in said
    assert "needs a thing" in said


def test_a_skip_is_a_failure_in_ci_and_says_its_reason(tmp_path: Path) -> None:
    said = run_suite(tmp_path, SUITE, "true")
    assert "1 failed, 1 passed, 1 xfailed, 1 error" in said  # the marked one fails in its setup
    assert "skipped under CI=true, where nothing may be: needs a thing" in said
    assert "needs another thing" in said


def test_a_module_that_skips_itself_fails_in_ci(tmp_path: Path) -> None:
    text = 'import pytest\npytest.importorskip("no_such_module")\n'
    assert "1 skipped" in run_suite(tmp_path, text, None)
    assert "1 error" in run_suite(tmp_path, text, "true")


@pytest.mark.parametrize(("reason", "ci", "refused"), [("x", True, True), ("x", False, False), ("", True, True)])
def test_only_ci_refuses(reason: str, ci: bool, refused: bool) -> None:
    assert is_refused(reason, ci=ci) is refused
