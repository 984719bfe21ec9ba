"""Reading streams: windows backwards, and following on without gaps, whatever happens to the consumer."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client as NatsClient
from nats.js import api

from invoker.errors import ServerUnreachableError
from invoker.reading import StreamReader

pytestmark = pytest.mark.integration
STREAM = "NUMBERS"


@pytest.fixture
async def reader(client: NatsClient) -> StreamReader:
    await client.jetstream().add_stream(api.StreamConfig(name=STREAM, subjects=["n.>"]))
    return StreamReader(client, client.jetstream())


async def put(client: NatsClient, numbers: range, *, size: int = 0, subject: str = "n.a") -> None:
    js, at_once = client.jetstream(timeout=60), 20 if size else 200
    for start in range(numbers.start, numbers.stop, at_once):
        part = range(start, min(start + at_once, numbers.stop))
        await asyncio.gather(*(js.publish(subject, b"%d" % n + bytes(size), headers={"N": str(n)}) for n in part))


async def test_a_stretch_of_a_stream_is_read_exactly(client: NatsClient, reader: StreamReader) -> None:
    await put(client, range(1, 1301))
    found = await reader.between(STREAM, ["n.a"], 10, 1234)
    assert [message.sequence for message in found] == list(range(10, 1235))
    assert found[0].headers["N"] == "10"
    assert found[0].data == b""
    assert (await reader.between(STREAM, ["n.a"], 10, 10, headers_only=False))[0].data == b"10"
    assert await reader.between(STREAM, ["n.b"], 1, 1300) == []
    assert await reader.between(STREAM, ["n.a"], 1301, 2000) == []
    assert await reader.between(STREAM, ["n.a"], 5, 4) == []


async def test_backwards_is_the_stream_reversed(client: NatsClient, reader: StreamReader) -> None:
    await put(client, range(1, 1501))
    await put(client, range(1501, 1502), subject="n.b")
    await client.jetstream().purge_stream(STREAM, seq=300)
    everything = [message.sequence async for message in reader.backwards(STREAM, ["n.a", "n.b"])]
    assert everything == list(range(1501, 299, -1))
    assert [message.sequence async for message in reader.backwards(STREAM, ["n.a"], before=310)] == list(
        range(309, 299, -1)
    )
    assert [message.sequence async for message in reader.backwards(STREAM, ["n.b"])] == [1501]
    assert [message async for message in reader.backwards(STREAM, ["n.a"], before=1)] == []


async def test_reading_leaves_no_consumer_behind(client: NatsClient, reader: StreamReader) -> None:
    await put(client, range(1, 11))
    await reader.between(STREAM, ["n.a"], 1, 10)
    async with reader.tail(STREAM, ["n.a"]) as tail:
        await anext(tail)
    assert (await client.jetstream().stream_info(STREAM)).state.consumer_count == 0


async def test_following_a_large_past_at_leisure_misses_nothing(client: NatsClient, reader: StreamReader) -> None:
    """More bytes than a subscription may hold: the server waits until they were taken."""
    await put(client, range(1, 2001), size=100_000)
    async with reader.tail(STREAM, ["n.a"]) as tail:
        seen = [(await anext(tail)).sequence for _ in range(1)]
        await asyncio.sleep(0.5)  # what comes meanwhile has to be held back by somebody
        seen += [(await anext(tail)).sequence for _ in range(1999)]
    assert seen == list(range(1, 2001))


async def test_following_goes_on_after_the_consumer_was_deleted(client: NatsClient, reader: StreamReader) -> None:
    await put(client, range(1, 4))
    js = client.jetstream()
    async with reader.tail(STREAM, ["n.a"]) as tail:
        seen = [(await anext(tail)).sequence for _ in range(3)]
        for info in await js.consumers_info(STREAM):
            await js.delete_consumer(STREAM, info.name)
        await put(client, range(4, 7))
        async with asyncio.timeout(60):
            seen += [(await anext(tail)).sequence for _ in range(3)]
    assert seen == [1, 2, 3, 4, 5, 6]


async def test_following_begins_where_it_is_told_and_hears_what_is_new(
    client: NatsClient, reader: StreamReader
) -> None:
    await put(client, range(1, 6))
    async with reader.tail(STREAM, ["n.a"], first=4, headers_only=True) as tail:
        assert tail.pending == 2
        await put(client, range(6, 7), subject="n.b")
        await put(client, range(7, 8))
        assert [(await anext(tail)).sequence for _ in range(3)] == [4, 5, 7]
        assert tail.position == 8


async def test_a_time_limit_around_a_follower_holds(client: NatsClient, reader: StreamReader) -> None:
    async with reader.tail(STREAM, ["n.a"]) as tail:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(tail)
        await put(client, range(1, 2))
        assert (await anext(tail)).sequence == 1


async def test_a_stream_that_does_not_exist_is_said_to_need_a_controller(client: NatsClient) -> None:
    reader = StreamReader(client, client.jetstream())
    with pytest.raises(ServerUnreachableError, match="no controller has been on this NATS"):
        await reader.between("ABSENT", ["a"], 1, 2)
    with pytest.raises(ServerUnreachableError, match="no controller has been on this NATS"):
        await reader.state("ABSENT")
    with pytest.raises(ServerUnreachableError, match="no controller has been on this NATS"):
        async with reader.tail("ABSENT", ["a"]):
            pass
