"""A chain of requests: found from any member, over only when nothing more can come, watched while it grows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from invoker import Client, wire
from invoker.errors import UnknownIdError, WaitExpiredError
from invoker.views import Chain
from tests.conftest import eventually
from tests.integration.stored_world import StoredWorld, followed, run_id

pytestmark = pytest.mark.integration


async def grown_chain(world: StoredWorld) -> None:
    """collect → two files → each unpacked; the second file's stage is still queued."""
    await world.accept("root", "collect")
    await world.accept("someone-else", "collect")
    await world.finish("root", "collect")
    parent = run_id("root", "collect")
    for child in ("one", "two"):
        await world.accept(child, "unpack", root_request_id="root", parent_run_id=parent, hops=1)
    await world.finish("one", "unpack")


def shape(chain: Chain) -> dict[str, list[str]]:
    return {node.view.request_id: [child.view.request_id for child in node.children] for node in chain}


async def test_a_chain_is_found_from_any_of_its_members(sdk: Client, world: StoredWorld) -> None:
    await grown_chain(world)
    for given in ("root", "one", "two", run_id("two", "unpack")):
        chain = await sdk.chain(given)
        assert shape(chain) == {"root": ["one", "two"], "one": [], "two": []}
        assert not chain.settled
    assert shape(await sdk.chain("someone-else")) == {"someone-else": []}


async def test_a_chain_ends_only_when_nothing_more_can_come(sdk: Client, world: StoredWorld) -> None:
    """Every step is a moment at which a client might wrongly think that all is over."""
    await world.accept("root", "collect")
    waiting = asyncio.create_task(sdk.chain("root", wait=60))
    await followed(world)
    await world.seal("root", "collect")  # the result is there, its next event is not yet published
    await not_yet(waiting)
    next_id = wire.chained_id(run_id("root", "collect"), "onSuccess")
    await sdk.publish("collected", b"", request_id=next_id)
    await world.release("root", "collect")  # published, but not yet accepted
    await not_yet(waiting)
    parent = run_id("root", "collect")
    await world.accept(next_id, "convert", root_request_id="root", parent_run_id=parent, hops=1)
    await world.take_event()
    await not_yet(waiting)
    await world.finish(next_id, "convert")
    chain = await asyncio.wait_for(waiting, 60)
    assert chain.settled
    assert chain.succeeded
    assert shape(chain) == {"root": [next_id], next_id: []}


async def test_a_chain_ends_while_other_events_keep_coming(sdk: Client, world: StoredWorld) -> None:
    """EVENTS is never empty on a busy system: what counts is what was stored before the chain's last run ended."""
    await world.accept("root", "collect")
    await sdk.publish("other", b"1")
    await world.finish("root", "collect")
    waiting = asyncio.create_task(sdk.chain("root", wait=60))
    await followed(world)
    await not_yet(waiting)

    async def settled_while_events_come() -> bool:
        """Another one comes before the oldest is taken."""
        await sdk.publish("other", b"2")
        await world.take_event()
        return waiting.done()

    await eventually(settled_while_events_come, what="the end of the chain")
    assert (await waiting).settled


async def test_the_growth_of_a_chain_can_be_watched(sdk: Client, world: StoredWorld) -> None:
    await world.accept("root", "collect")
    sizes: list[tuple[int, int]] = []
    async for chain in sdk.follow_chain("root"):
        done = sum(run.finished for run in chain.runs)
        if (len(chain.views), done) not in sizes:
            sizes.append((len(chain.views), done))
        if len(sizes) == 1:
            await world.accept("one", "unpack", root_request_id="root", parent_run_id=run_id("root", "collect"))
            await world.finish("root", "collect")
            await world.finish("one", "unpack")
    assert sizes[0] == (1, 0)
    assert sizes[-1] == (2, 2)


async def test_a_chain_in_vain_tells_how_far_it_came(sdk: Client, world: StoredWorld) -> None:
    await grown_chain(world)
    with pytest.raises(WaitExpiredError) as caught:
        await sdk.chain("root", wait=5)  # in which what is there has been read
    assert isinstance(caught.value.partial, Chain)
    assert len(caught.value.partial.views) == 3
    with pytest.raises(WaitExpiredError):
        await sdk.chain("not-there-yet", wait=0.3)
    with pytest.raises(UnknownIdError):
        await sdk.chain("not-there-yet")


async def not_yet(task: asyncio.Task[Any]) -> None:
    """The task has had time for several looks, and has not ended."""
    done, _ = await asyncio.wait([task], timeout=0.4)
    assert not done
