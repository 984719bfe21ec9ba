"""Cancelling a chain, with a controller that is slow or away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from invoker import Client
from invoker.cancelling import cancelled_chain
from invoker.errors import WaitExpiredError
from invoker.result import Reason
from invoker.views import Cancelled, Chain
from tests.integration.stored_world import StoredWorld, run_id

pytestmark = pytest.mark.integration


class SlowDoor:
    """A client whose cancels take their time."""

    def __init__(self, sdk: Client, world: StoredWorld, seconds: float) -> None:
        self._sdk, self._world, self._seconds = sdk, world, seconds

    def follow_chain(self, id: str) -> AsyncGenerator[Chain, None]:
        return self._sdk.follow_chain(id)

    async def cancel(self, id: str, *, function: str | None = None, message: str | None = None) -> Cancelled:
        await asyncio.sleep(self._seconds)
        await self._world.finish(id, "unpack", reason=Reason.CANCELLED)
        return Cancelled(cancelled=(run_id(id, "unpack"),))


async def test_a_chain_is_cancelled_whole_however_long_that_takes(sdk: Client, world: StoredWorld) -> None:
    await world.accept("root", "collect")
    await world.finish("root", "collect")
    files = [f"file-{number}" for number in range(6)]
    for file in files:
        await world.accept(file, "unpack", root_request_id="root", parent_run_id=run_id("root", "collect"), hops=1)
    done = await cancelled_chain(SlowDoor(sdk, world, 0.5), "root", None, patience_seconds=2)
    assert done.cancelled == tuple(run_id(file, "unpack") for file in files)
    assert done.already_finished == (run_id("root", "collect"),)


async def test_a_chain_that_is_not_accepted_is_not_said_to_be_finished(sdk: Client) -> None:
    receipt = await sdk.publish("orders", 1)
    with pytest.raises(WaitExpiredError, match="not accepted yet"):
        await cancelled_chain(sdk, receipt.request_id, None, patience_seconds=1)
