"""Claim checks on a real object store: both directions, every size at the borders, damage, and sweeping."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.claimcheck import CHUNK_BYTES, ClaimStore, claim_of
from invoker.errors import ClaimCheckError, PayloadTooLargeError
from invoker.request import ClaimCheck
from invoker.streams import StreamLimits, ensure_streams

pytestmark = pytest.mark.integration
NAMES = wire.Names()
STREAM = f"OBJ_{NAMES.payloads_bucket}"


@pytest.fixture
async def claims(client: NatsClient) -> ClaimStore:
    await ensure_streams(client.jetstream(timeout=60), NAMES, StreamLimits())
    return ClaimStore(client.jetstream(), NAMES)


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def in_parts(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 16 * CHUNK_BYTES, 17 * CHUNK_BYTES + 5]


@pytest.mark.parametrize("size", SIZES)
async def test_bytes_come_back_as_they_were(claims: ClaimStore, size: int) -> None:
    data = some_bytes(size)
    claim = await claims.put(data, owner="event")
    assert (claim.size_bytes, claim.sha256) == (size, hashlib.sha256(data).hexdigest())
    assert await claims.read(claim) == data


@pytest.mark.parametrize("part", [1000, CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 7])
async def test_a_stream_of_any_part_size_is_the_same_object(claims: ClaimStore, part: int) -> None:
    data = some_bytes(5 * CHUNK_BYTES + 11)
    claim = await claims.put(in_parts(data, part), owner="event")
    assert await claims.read(claim) == data
    found = await claims.find(claim.object)
    assert found is not None
    assert found.chunks == 6


async def test_an_empty_stream_is_an_empty_object(claims: ClaimStore) -> None:
    claim = await claims.put(in_parts(b"", 1), owner="event")
    assert claim.size_bytes == 0
    assert await claims.read(claim) == b""


async def test_30_megabytes_in_both_directions(claims: ClaimStore) -> None:
    data = some_bytes(30 * 1024 * 1024)
    claim = await claims.put(in_parts(data, 256 * 1024), owner="output")
    hasher, largest = hashlib.sha256(), 0
    async for chunk in claims.open(claim):
        hasher.update(chunk)
        largest = max(largest, len(chunk))
    assert hasher.hexdigest() == claim.sha256 == hashlib.sha256(data).hexdigest()
    assert largest <= CHUNK_BYTES


async def test_the_objects_are_ordinary_nats_objects(client: NatsClient, claims: ClaimStore) -> None:
    """`nats object get` reads what we store, and we read what `nats object put` stores."""
    data = some_bytes(3 * CHUNK_BYTES + 1)
    store = await client.jetstream().object_store(NAMES.payloads_bucket)
    ours = await claims.put(data, owner="event")
    assert (await store.get(ours.object)).data == data
    info = await store.put("by-hand", data)
    theirs = ClaimCheck(object=info.name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    assert await claims.read(theirs) == data


async def test_every_put_is_an_object_of_its_own(claims: ClaimStore) -> None:
    """A repeated attempt must never overwrite bytes that a sealed result points at."""
    first, second = await claims.put(b"same", owner="run"), await claims.put(b"same", owner="run")
    assert first.object != second.object
    assert first.object.startswith("run/")


async def test_missing_bytes_are_told_at_once(claims: ClaimStore) -> None:
    claim = ClaimCheck(object="event/gone", size_bytes=1, sha256="0" * 64)
    with pytest.raises(ClaimCheckError, match="event/gone are gone"):
        await claims.read(claim)
    with pytest.raises(ClaimCheckError, match="are gone"):
        await claims.touch(claim)


@pytest.mark.parametrize("given", [{"sha256": "0" * 64}, {"size_bytes": 6}])
async def test_bytes_other_than_promised_are_refused(claims: ClaimStore, given: dict[str, object]) -> None:
    claim = (await claims.put(b"hello", owner="event")).model_copy(update=given)
    with pytest.raises(ClaimCheckError, match="differ from what was promised"):
        await claims.read(claim)


async def test_a_corrupted_chunk_is_noticed(client: NatsClient, claims: ClaimStore) -> None:
    data = some_bytes(2 * CHUNK_BYTES)
    claim = await claims.put(data, owner="event")
    found = await claims.find(claim.object)
    assert found is not None
    js = client.jetstream()
    await js.purge_stream(STREAM, subject=f"$O.{NAMES.payloads_bucket}.C.{found.nuid}")
    for chunk in (data[:CHUNK_BYTES], bytes(CHUNK_BYTES)):
        await js.publish(f"$O.{NAMES.payloads_bucket}.C.{found.nuid}", chunk)
    with pytest.raises(ClaimCheckError, match="sha256"):
        await claims.read(claim)


async def test_a_lost_chunk_is_noticed_and_not_waited_for_for_ever(client: NatsClient, claims: ClaimStore) -> None:
    claim = await claims.put(some_bytes(3 * CHUNK_BYTES), owner="event")
    await client.jetstream().delete_msg(STREAM, 2)
    with pytest.raises(ClaimCheckError):
        await asyncio.wait_for(claims.read(claim), 60)


async def test_above_the_limit_nothing_is_kept(client: NatsClient, claims: ClaimStore) -> None:
    with pytest.raises(PayloadTooLargeError, match="1000") as caught:
        await claims.put(in_parts(some_bytes(5 * CHUNK_BYTES), 100), owner="event", limit_bytes=1000)
    assert caught.value.fields["limit_bytes"] == 1000
    assert (await client.jetstream().stream_info(STREAM)).state.messages == 0


async def test_what_is_withdrawn_is_gone_and_what_is_kept_stays(client: NatsClient, claims: ClaimStore) -> None:
    ours = await claims.put(some_bytes(2 * CHUNK_BYTES), owner="output")
    theirs = await claims.put(some_bytes(2 * CHUNK_BYTES), owner="output")
    await claims.withdraw(ours, kept=ours)  # what was sealed is our own, after all
    await claims.withdraw(None, kept=theirs)
    assert (await client.jetstream().stream_info(STREAM)).state.messages == 6
    for _ in range(2):
        await claims.withdraw(ours, kept=theirs)
    assert await claims.find(ours.object) is None
    assert await claims.read(theirs) == some_bytes(2 * CHUNK_BYTES)
    assert (await client.jetstream().stream_info(STREAM)).state.messages == 3


async def test_who_may_not_purge_empties_what_is_withdrawn_and_a_sweep_removes_the_rest(
    client: NatsClient, claims: ClaimStore
) -> None:
    store = ClaimStore(client.jetstream(), NAMES, may_purge=False)
    with pytest.raises(PayloadTooLargeError):
        await store.put(in_parts(some_bytes(5 * CHUNK_BYTES), CHUNK_BYTES), owner="event", limit_bytes=4 * CHUNK_BYTES)
    await store.withdraw(await store.put(some_bytes(2 * CHUNK_BYTES), owner="output"), kept=None)
    state = (await client.jetstream().stream_info(STREAM)).state
    assert (state.messages, state.bytes < 2_000) == (3, True)
    assert await claims.sweep(before=datetime.now(UTC) + timedelta(seconds=5)) == 2
    assert (await client.jetstream().stream_info(STREAM)).state.messages == 0


async def test_a_stream_that_fails_leaves_nothing(client: NatsClient, claims: ClaimStore) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield some_bytes(3 * CHUNK_BYTES)
        raise OSError("the disk is gone")

    with pytest.raises(Exception, match="the disk is gone"):
        await claims.put(failing(), owner="event")
    assert (await client.jetstream().stream_info(STREAM)).state.messages == 0


async def test_a_sweep_removes_the_old_and_keeps_what_was_used_since(client: NatsClient, claims: ClaimStore) -> None:
    old, used = await claims.put(b"old", owner="event"), await claims.put(b"used", owner="event")
    before = datetime.now(UTC)
    await claims.touch(used)
    new = await claims.put(b"new", owner="event")
    assert await claims.sweep(before=before) == 1
    assert await claims.find(old.object) is None
    assert await claims.read(used) == b"used"
    assert await claims.read(new) == b"new"
    assert await claims.sweep(before=before) == 0
    assert await claims.sweep(before=datetime.now(UTC) + timedelta(seconds=5)) == 2
    assert (await client.jetstream().stream_info(STREAM)).state.messages == 0


async def test_a_sweep_removes_what_a_killed_writer_left(client: NatsClient, claims: ClaimStore) -> None:
    kept = await claims.put(some_bytes(3), owner="event")
    js = client.jetstream()
    for _ in range(3):
        await js.publish(f"$O.{NAMES.payloads_bucket}.C.unfinished", b"chunk")
    assert await claims.sweep(before=datetime.now(UTC) - timedelta(seconds=60)) == 0, "it may be written just now"
    assert (await js.stream_info(STREAM)).state.messages == 5
    await claims.touch(kept)
    before = datetime.now(UTC) + timedelta(seconds=1)
    assert await claims.sweep(before=before) == 2
    assert (await js.stream_info(STREAM)).state.messages == 0


async def test_a_sweep_of_many_objects(claims: ClaimStore) -> None:
    await asyncio.gather(*(claims.put(b"x", owner="event") for _ in range(450)))
    assert await claims.sweep(before=datetime.now(UTC) + timedelta(seconds=5)) == 450


@pytest.mark.parametrize("text", ["", "{", "{}", '{"object": "a", "bytes": -1, "sha256": ""}', "[]"])
def test_a_header_that_is_no_claim_check_is_refused(text: str) -> None:
    with pytest.raises(ClaimCheckError, match="Invoker-Claim"):
        claim_of({"Invoker-Claim": text})


def test_a_header_that_is_one_is_read() -> None:
    claim = ClaimCheck(object="a/b", size_bytes=3, sha256="0" * 64)
    assert claim_of({"invoker-claim": claim.to_json().decode()}) == claim
    assert claim_of({}) is None
    assert claim_of(None) is None
