"""The local engine against the suite of all engines. What only local processes do is in `test_local_processes.py`."""

from __future__ import annotations

from tests.conformance.engine_suite import *  # noqa: F403 -- the suite is the point of this module
from tests.conformance.local_world import engine_world

__all__ = ["engine_world"]
