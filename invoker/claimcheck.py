"""Claim checks: bytes too large for a message, kept in the object store and passed by reference.

The objects are ordinary NATS objects (`nats object get` reads them). Both directions stream: no more than a few chunks
are in memory. A claim check is a promise about size and sha256, and it is checked whenever the bytes are read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import nats.errors
import nats.js.errors
from nats.js import api

from invoker import wire
from invoker.connection import nats_errors
from invoker.errors import ClaimCheckError, InvokerError, PayloadTooLargeError
from invoker.request import ClaimCheck

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext

CHUNK_BYTES = 128 * 1024
"""The object store's own default; also what `nats object put` uses."""
_WINDOW = 16
"""Chunks on their way at once: 2 MiB in memory, and no round trip per chunk."""
_HEADERS_AT_ONCE = 500
_TIDY_SECONDS = 3.0
"""Somebody waits for an answer meanwhile, and the sweep removes what is left."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as its meta message tells it."""

    name: str
    nuid: str
    size_bytes: int
    chunks: int
    touched_at: datetime
    digest: bytes = b""


class ClaimStore:
    """Puts, reads and removes the bytes behind claim checks of one instance.

    `may_purge`: whether this NATS user may purge the bucket, which sweeping needs; of the roles only a controller may.
    """

    def __init__(self, jetstream: JetStreamContext, names: wire.Names, *, may_purge: bool = True) -> None:
        self._js = jetstream
        self._may_purge = may_purge
        self._bucket = names.payloads_bucket
        self._stream = f"OBJ_{names.payloads_bucket}"

    async def put(
        self, data: bytes | AsyncIterable[bytes], *, owner: str, limit_bytes: int | None = None, name: str | None = None
    ) -> ClaimCheck:
        """Store the bytes under a new name and return their claim check; repeating makes another object.

        Why a random part in the name: an attempt must never overwrite bytes that a sealed result points at. Raises
        `PayloadTooLargeError` above `limit_bytes` (no byte is kept) and what `nats_errors` raises.
        """
        name, nuid = name or f"{owner}/{secrets.token_hex(12)}", secrets.token_hex(11)
        hasher, size, count = hashlib.sha256(), 0, 0
        pending: set[asyncio.Future[Any]] = set()
        try:
            async for chunk in _chunks(data):
                size += len(chunk)
                if limit_bytes is not None and size > limit_bytes:
                    raise PayloadTooLargeError(f"more than the limit of {limit_bytes} bytes", limit_bytes=limit_bytes)
                hasher.update(chunk)
                with nats_errors(f"storing {name}"):
                    if len(pending) >= _WINDOW:
                        await _settled(pending, asyncio.FIRST_COMPLETED)
                    pending.add(await self._js.publish_async(self._chunk_subject(nuid), chunk, stream=self._stream))
                count += 1
            with nats_errors(f"storing {name}"):
                await _settled(pending, asyncio.ALL_COMPLETED)
                # The meta message comes last: an object without it does not exist for any reader.
                await self._put_meta(name, nuid, size, count, hasher.digest())
        except BaseException:  # cancelled too: half an object takes room until somebody removes it
            await asyncio.shield(self._give_up(nuid, pending))
            raise
        return ClaimCheck(object=name, size_bytes=size, sha256=hasher.hexdigest())

    async def put_log(self, run_id: str, data: bytes) -> None:
        """Keep the log tail of a run whose result was sealed before its process ended; the last one put stands."""
        await self.put(data, owner=wire.log_object(run_id), name=wire.log_object(run_id))

    async def log(self, run_id: str) -> bytes | None:
        """The log tail that `put_log` kept, None when there is none."""
        stored = await self.find(wire.log_object(run_id))
        return b"".join([chunk async for chunk in self._read(stored)]) if stored is not None else None

    async def open(self, claim: ClaimCheck) -> AsyncIterator[bytes]:
        """The bytes in chunks, in order. Raises `ClaimCheckError` at once when the object is gone, and after the last
        chunk when size or sha256 differ: a reader must not act on the bytes before the iteration has ended."""
        stored = await self.find(claim.object)
        if stored is None:
            raise ClaimCheckError(f"the bytes of claim check {claim.object} are gone", object=claim.object)
        hasher, size = hashlib.sha256(), 0
        async for chunk in self._read(stored):
            hasher.update(chunk)
            size += len(chunk)
            yield chunk
        if size != claim.size_bytes or hasher.hexdigest() != claim.sha256:
            raise ClaimCheckError(
                f"the bytes of claim check {claim.object} differ from what was promised "
                f"({size} bytes for {claim.size_bytes}, sha256 {hasher.hexdigest()[:12]}… for {claim.sha256[:12]}…)",
                object=claim.object,
            )

    async def part(self, claim: ClaimCheck, first: int, last: int) -> AsyncIterator[bytes]:
        """The bytes from `first` to `last`, both included; what lies before them is not read.

        A part cannot be checked against a sha256 of the whole. Raises `ClaimCheckError` before the first chunk when the
        object is gone or has another size than was promised.
        """
        stored = await self.find(claim.object)
        if stored is None:
            raise ClaimCheckError(f"the bytes of claim check {claim.object} are gone", object=claim.object)
        size, begin, sequence = 0, 0, 1
        async for chunk in self._messages(stored, headers_only=True):
            if size <= first:
                begin, sequence = size, chunk.metadata.sequence.stream
            size += int((chunk.headers or {}).get("Nats-Msg-Size") or 0)
        if size != claim.size_bytes:
            raise ClaimCheckError(
                f"the bytes of claim check {claim.object} differ from what was promised "
                f"({size} bytes for {claim.size_bytes})",
                object=claim.object,
            )
        async for chunk in self._messages(stored, sequence):
            yield chunk.data[max(0, first - begin) : last + 1 - begin]
            begin += len(chunk.data)
            if begin > last:
                return

    async def read(self, claim: ClaimCheck) -> bytes:
        """All the bytes at once, verified; for sizes known to be small."""
        return b"".join([chunk async for chunk in self.open(claim)])

    async def find(self, name: str) -> StoredObject | None:
        """The object's meta data, or None when there is none of that name."""
        with nats_errors(f"looking up {name}"):
            try:
                message = await self._js.get_msg(self._stream, subject=self._meta_subject(name))
            except nats.js.errors.NotFoundError:
                return None
        return _stored_object(message.data or b"{}", message.time)

    async def touch(self, claim: ClaimCheck) -> None:
        """Start the retention of the bytes anew, since they are used again. Raises `ClaimCheckError` when gone."""
        stored = await self.find(claim.object)
        if stored is None:
            raise ClaimCheckError(f"the bytes of claim check {claim.object} are gone", object=claim.object)
        with nats_errors(f"touching {claim.object}"):
            # What is stored about the bytes stays: the claim check is a publisher's word, and may be wrong.
            await self._put_meta(stored.name, stored.nuid, stored.size_bytes, stored.chunks, stored.digest)

    async def withdraw(self, claim: ClaimCheck | None, *, kept: ClaimCheck | None) -> None:
        """Free the room of the bytes behind a claim check that nobody will be given, unless they are the `kept` ones;
        repeating is harmless. Takes a few seconds at most and never raises for NATS: what is left is swept."""
        if claim is None or (kept is not None and kept.object == claim.object):
            return
        with suppress(InvokerError, TimeoutError):
            async with asyncio.timeout(_TIDY_SECONDS):
                stored = await self.find(claim.object)
                if stored is not None:
                    await (self._delete(stored) if self._may_purge else self._empty(stored.nuid))

    async def sweep(self, *, before: datetime) -> int:
        """Remove every object last used before that instant and return how many; repeating is harmless.

        Chunks as old whose object was never finished (its writer was killed) go with them.
        """
        found, removed = await self._list(), 0
        for stored in found:
            if stored.touched_at < before:
                await self._delete(stored)
                removed += 1
        for nuid in await self._nuids() - {stored.nuid for stored in found}:
            removed += await self._sweep_unfinished(nuid, before)
        return removed

    async def _sweep_unfinished(self, nuid: str, before: datetime) -> int:
        with nats_errors("looking at chunks"):
            try:
                last = await self._js.get_msg(self._stream, subject=self._chunk_subject(nuid))
            except nats.js.errors.NotFoundError:
                return 0
        if last.time is None or last.time >= before:
            return 0  # perhaps being written just now
        await self._purge(nuid)
        return 1

    async def _nuids(self) -> set[str]:
        """The objects that have chunks: the server tells at most 100,000 at once, the rest another time."""
        with nats_errors("listing chunks"):
            info = await self._js.stream_info(self._stream, subjects_filter=self._chunk_subject(">"))
        return {subject.rpartition(".")[2] for subject in info.state.subjects or {}}

    async def _give_up(self, nuid: str, pending: set[asyncio.Future[Any]]) -> None:
        """Remove what was stored of an object that will not be. Chunks on their way would arrive after the purge, so
        they are waited for; what stays all the same is swept."""
        with suppress(InvokerError, nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError):
            await _settled(pending, asyncio.ALL_COMPLETED)
        with suppress(InvokerError):
            await (self._purge(nuid) if self._may_purge else self._empty(nuid))

    async def _empty(self, nuid: str) -> None:
        """One empty message in place of the chunks, until it is swept: whoever may store them may do that. A refused
        purge would be told to operators as a missing right, and keep a gateway from being ready."""
        with nats_errors("emptying chunks"):
            headers = {"Nats-Rollup": "sub"}
            await self._js.publish(self._chunk_subject(nuid), b"", headers=headers, stream=self._stream)

    async def _list(self) -> list[StoredObject]:
        with nats_errors("listing the object store"):
            subscription = await self._js.pull_subscribe(
                f"$O.{self._bucket}.M.>",
                stream=self._stream,
                config=api.ConsumerConfig(
                    ack_policy=api.AckPolicy.NONE, deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT, mem_storage=True
                ),
            )
            try:
                found: list[StoredObject] = []
                left = (await subscription.consumer_info()).num_pending or 0
                while left > 0:
                    for message in await subscription.fetch(min(left, 200), timeout=5):
                        left -= 1
                        stored = _stored_object(message.data, message.metadata.timestamp)
                        if stored is not None:
                            found.append(stored)
                return found
            finally:
                await self._drop(subscription)

    async def _read(self, stored: StoredObject) -> AsyncIterator[bytes]:
        async for chunk in self._messages(stored):
            yield chunk.data

    async def _messages(
        self, stored: StoredObject, first: int = 1, *, headers_only: bool = False
    ) -> AsyncIterator[Msg]:
        """The chunks of an object from that sequence of the store on."""
        config = api.ConsumerConfig(
            filter_subject=self._chunk_subject(stored.nuid),
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=first,
            ack_policy=api.AckPolicy.NONE,
            headers_only=headers_only or None,
            mem_storage=True,
            inactive_threshold=60.0,
        )
        window = _WINDOW if not headers_only else _HEADERS_AT_ONCE
        with nats_errors(f"reading {stored.name}"):
            info = await self._js.add_consumer(self._stream, config)
            subscription = await self._js.pull_subscribe_bind(consumer=info.name, stream=self._stream)
        try:
            # What is there, which may be less than there was: then the checksum says so, and nothing is waited for.
            left = info.num_pending or 0
            while left > 0:
                with nats_errors(f"reading {stored.name}"):
                    messages = await subscription.fetch(min(left, window), timeout=10)
                for message in messages:
                    yield message
                left -= len(messages)
        finally:
            await self._drop(subscription)

    async def _drop(self, subscription: JetStreamContext.PullSubscription) -> None:
        try:
            info = await subscription.consumer_info()
            await subscription.unsubscribe()
            await self._js.delete_consumer(self._stream, info.name)
        except (nats.errors.Error, nats.js.errors.Error, OSError):
            return  # an ephemeral consumer ends by itself after its inactivity threshold

    async def _put_meta(self, name: str, nuid: str, size: int, count: int, digest: bytes) -> None:
        document = {
            "name": name,
            "bucket": self._bucket,
            "nuid": nuid,
            "size": size,
            "chunks": count,
            "mtime": datetime.now(UTC).isoformat(),
            "digest": f"SHA-256={base64.urlsafe_b64encode(digest).decode()}",
            "options": {"max_chunk_size": CHUNK_BYTES},
        }
        await self._js.publish(
            self._meta_subject(name), json.dumps(document).encode(), headers={"Nats-Rollup": "sub"}, stream=self._stream
        )

    async def _delete(self, stored: StoredObject) -> None:
        # Chunks first: a crash in between leaves a meta message that the next sweep finds again.
        await self._purge(stored.nuid)
        with nats_errors(f"removing {stored.name}"):
            await self._js.purge_stream(self._stream, subject=self._meta_subject(stored.name))

    async def _purge(self, nuid: str) -> None:
        with nats_errors("removing chunks"):
            await self._js.purge_stream(self._stream, subject=self._chunk_subject(nuid))

    def _chunk_subject(self, nuid: str) -> str:
        return f"$O.{self._bucket}.C.{nuid}"

    def _meta_subject(self, name: str) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def claim_of(headers: dict[str, str] | None) -> ClaimCheck | None:
    """The claim check in a message's headers, None without one. Raises `ClaimCheckError` when it cannot be read."""
    text = wire.header(headers, wire.H_CLAIM)
    if text is None:
        return None
    try:
        return ClaimCheck.model_validate_json(text)
    except ValueError as error:
        raise ClaimCheckError(
            f"the header {wire.H_CLAIM} is not a claim check (object, bytes, sha256 of 64 hexadecimal digits)"
        ) from error


async def _settled(pending: set[asyncio.Future[Any]], when: str) -> None:
    if not pending:
        return
    done, _ = await asyncio.wait(pending, timeout=30, return_when=when)
    if not done or (when == asyncio.ALL_COMPLETED and len(done) < len(pending)):
        raise TimeoutError
    for future in done:
        pending.discard(future)
        future.result()


async def _chunks(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The data cut into chunks of the store's size, whatever sizes it came in."""
    if isinstance(data, bytes | bytearray | memoryview):
        view = memoryview(data)
        for start in range(0, len(view), CHUNK_BYTES):
            yield bytes(view[start : start + CHUNK_BYTES])
        return
    buffer = bytearray()
    async for part in data:
        buffer += part
        while len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer[:CHUNK_BYTES])
            del buffer[:CHUNK_BYTES]
    if buffer:
        yield bytes(buffer)


def _stored_object(data: bytes, stored_at: datetime | None) -> StoredObject | None:
    document = json.loads(data)
    if document.get("deleted") or "nuid" not in document:
        return None
    return StoredObject(
        name=document["name"],
        nuid=document["nuid"],
        size_bytes=document.get("size", 0),
        chunks=document.get("chunks", 0),
        touched_at=stored_at or datetime.now(UTC),
        digest=base64.urlsafe_b64decode(str(document.get("digest", "")).removeprefix("SHA-256=")),
    )
