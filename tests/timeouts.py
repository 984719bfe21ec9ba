"""The limit of a test (pytest-timeout) ends that test and never the session.

Its alarm raises wherever the process is at that moment. A test that fails just before it would be interrupted while
pytest writes down why, and that is an error of pytest itself, which ends everything. A pytest plugin, named in
`tests/conftest.py`.
"""

from __future__ import annotations

import signal
from collections.abc import Generator

import pytest

LEAST_SECONDS = 1.0
"""What the rest of a test, its teardown say, has at least."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hold the alarm while a report is made."""
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        return (yield)
    finally:
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left, LEAST_SECONDS))
