"""What every engine must do: one test per promise of `trigger.engine`, for whatever engine the fixture gives.

A module that tests an engine imports all of this and defines the fixture `engine_world`, which gives an `EngineWorld`.
Nothing in here knows of processes, pods or folders; what an engine alone promises is tested beside that fixture.
"""

from __future__ import annotations

from tests.conformance.engine_suite.any_engine import STAY, EngineWorld, ended, printed, run, running  # noqa: F401 - for others
from tests.conformance.engine_suite.ends import *  # noqa: F403 - the suite is its tests
from tests.conformance.engine_suite.lifetime import *  # noqa: F403 - the suite is its tests
from tests.conformance.engine_suite.limits import *  # noqa: F403 - the suite is its tests
from tests.conformance.engine_suite.output import *  # noqa: F403 - the suite is its tests
from tests.conformance.engine_suite.stop import *  # noqa: F403 - the suite is its tests
