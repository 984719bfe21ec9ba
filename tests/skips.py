"""A skipped test is news for one person and a failure in CI: what nobody runs there, nobody knows to work.

Under `CI=true` every skip becomes a failure that names its reason, save the few of `ALLOWED_IN_CI`. `tests/conftest.py`
imports the hooks.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import NoReturn

import pytest

ALLOWED_IN_CI: tuple[str, ...] = ()
"""Beginnings of the reasons that CI accepts; each with a comment that says why CI cannot do it."""


def without(words: str, needed_if: str) -> NoReturn:
    """Skip the test, since what it needs is not here: `words` say what, and how it is had. Where the variable
    `needed_if` is 1, as in `.ci/run`, the test fails instead."""
    if os.environ.get(needed_if) == "1":
        pytest.fail(f"{needed_if}=1, but: {words}")
    pytest.skip(words)


def is_refused(reason: str, *, ci: bool) -> bool:
    """Whether a skip for this reason is a failure here."""
    return ci and not reason.startswith(ALLOWED_IN_CI)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The reason of a skipped report, without pytest's prefix."""
    longrepr = report.longrepr
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return text.removeprefix("Skipped: ")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected_to_fail = hasattr(report, "wasxfail")  # pytest reports an expected failure as a skip, too
    if report.skipped and not expected_to_fail:
        _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _refuse(report)
    return report


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = reason_of(report)
    if is_refused(reason, ci=os.environ.get("CI") == "true"):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI=true, where nothing may be: {reason}"
