"""The run API on a real server, with a small limit for outputs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client as NatsClient

from tests.integration.run_world import RunWorld, run_world

LIMIT = 2_000_000


@pytest.fixture
async def world(client: NatsClient) -> AsyncIterator[RunWorld]:
    async with run_world(client, max_output_bytes=LIMIT) as running:
        yield running
