"""The run API on a real server: what is given, what is taken, what is refused, and by which words."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client as NatsClient

from tests.integration.run_world import RunWorld, run_world

pytestmark = pytest.mark.integration


@pytest.fixture
async def world(client: NatsClient) -> AsyncIterator[RunWorld]:
    async with run_world(client) as running:
        yield running


async def test_output_becomes_the_result(world: RunWorld) -> None:
    run = await world.accept(b'{"a": 1}', content_type="application/json")
    given = await run.call("GET", "input")
    assert (given.status, given.body) == (200, b'{"a": 1}')
    assert given.headers["invoker-attempt"] == "1"
    taken = await run.call("PUT", "output", b"done", Content_Type="text/plain")
    assert taken.status == 201, taken.body
    assert taken.json() == {"run_id": run.run_id, "request_id": run.record.request_id}
    result = await run.result()
    assert result is not None
    assert result.succeeded
    assert result.output.inline_bytes() == b"done"
    print(result)
