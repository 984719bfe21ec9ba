"""A run API with everything real behind it, and a folder for one function that calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from tests.integration.run_world import RunWorld, run_world
from tests.integration.runtime.function_place import Place


@pytest.fixture
async def world(client: NatsClient) -> AsyncIterator[RunWorld]:
    async with run_world(client) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder = tmp_path / "function"
    folder.mkdir()
    return Place(folder)
