"""A controller with the catalog of the test's module, and a look at what it does.

`running` asks for the fixture `catalog`, which a module has that uses it; one whose controller needs other settings has
its own `running`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker.nats_server import NatsServer
from tests.controllers import View, running_controller
from trigger.app import Running


@pytest.fixture
async def running(server: NatsServer, catalog: Path, tmp_path: Path) -> AsyncIterator[Running]:
    async with running_controller(server.url, catalog, tmp_path / "state") as controller:
        yield controller


@pytest.fixture
async def view(running: Running, client: NatsClient) -> View:
    return await View(client).listen()
