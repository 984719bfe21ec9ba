"""Results in Redis: a copy filled from the RESULTS stream, which answers the polls of finished requests.

It says only what is final. A request whose record and results are all there is answered from here; everything else
(unfinished, unknown, expired, not yet copied, Redis away) is NATS' to answer, so nobody reads less here than there.
One hash for each request, `<prefix>request:<id>`, with the record and the results by function; it expires as the record
does. `<prefix>place` says how far the copy is. Needs Redis 7 or newer; it may be emptied at any time.
"""

from __future__ import annotations

import secrets
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from invoker.request import RequestRecord
from invoker.result import Result
from invoker.results.filling import CopiedDocument, CopyAwayError, Place
from invoker.results.nats import Answers
from invoker.results.redis_address import RedisAddress
from invoker.results.store import NATS, REDIS, ResultStore, note_origin

PATIENCE_SECONDS = 0.5
"""How long a poll waits for Redis before NATS is asked."""
AWAY_SECONDS = 1.0
"""After a failure polls go to NATS at once for this long."""
MAX_CONNECTIONS = 32
RECORD, RESULT = b"record", b"result."

_PLACE = """
local known = redis.call('HMGET', KEYS[1], 'stream', 'epoch', 'sequence')
if known[1] ~= ARGV[1] or not known[2] or ARGV[4] == '1' then
  known = {ARGV[1], ARGV[2], '0'}
  redis.call('HSET', KEYS[1], 'stream', known[1], 'epoch', known[2], 'sequence', known[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {known[2], known[3]}
"""
_MOVE = """
local known = redis.call('HMGET', KEYS[1], 'epoch', 'sequence')
if known[1] ~= ARGV[1] or tonumber(known[2]) < tonumber(ARGV[2]) then
  return 0
end
if tonumber(known[2]) < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'sequence', ARGV[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""
"""Forwards only: of several gateways the slower one must not set the others back."""

_log = structlog.get_logger(component="results")


class RedisResults:
    """The copy in one Redis, in front of NATS: a `ResultStore` to read, a `ResultsCopy` to fill."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, nats: ResultStore, shown: str = "") -> None:
        self._redis: Any = client  # its methods are typed as both awaitable and not
        self._prefix = prefix
        self._nats = nats
        self._shown = shown
        self._away_until = 0.0

    async def answers(self, request_id: str) -> Answers:
        """What is stored for a request: from Redis when it is complete there, else from NATS."""
        fields = await self._read("hgetall", request_id)
        answers = complete_answers(request_id, fields) if fields else None
        note_origin(NATS if answers is None else REDIS)
        return await self._nats.answers(request_id) if answers is None else answers

    async def result(self, request_id: str, function: str) -> Result | None:
        """A run's result, which is final wherever it is found."""
        data = await self._read("hget", request_id, _field(function))
        result = _parsed(data) if data else None
        note_origin(NATS if result is None else REDIS)
        return await self._nats.result(request_id, function) if result is None else result

    async def _read(self, command: str, request_id: str, *arguments: bytes) -> Any:
        """What Redis says, None when it is away: then polls spare it for a moment."""
        if time.monotonic() < self._away_until:
            return None
        try:
            with self._converted():
                return await getattr(self._redis, command)(self._request_key(request_id), *arguments)
        except CopyAwayError as error:
            self._away_until = time.monotonic() + AWAY_SECONDS
            _log.warning("results are read from NATS", error_message=str(error))
            return None

    async def place(self, stream_identity: str, retention: timedelta, *, anew: bool = False) -> Place:
        arguments = (stream_identity, secrets.token_hex(8), _milliseconds(retention), "1" if anew else "0")
        with self._converted():
            epoch, sequence = await self._redis.eval(_PLACE, 1, self._place_key, *arguments)
        return Place(epoch.decode(), int(sequence))

    async def write(
        self, documents: Sequence[CopiedDocument], before: Place, sequence: int, retention: timedelta
    ) -> bool:
        with self._converted():
            async with self._redis.pipeline(transaction=True) as pipe:
                for document in documents:
                    key = self._request_key(document.request_id)
                    pipe.hset(key, _field(document.function), document.data)
                    # The record is older than its results, so its end is the end of them all.
                    pipe.pexpireat(key, int(document.expires_at.timestamp() * 1000), lt=True)
                arguments = (before.epoch, before.sequence, sequence, _milliseconds(retention))
                pipe.eval(_MOVE, 1, self._place_key, *arguments)
                return bool((await pipe.execute())[-1])

    def _request_key(self, request_id: str) -> str:
        return f"{self._prefix}request:{request_id}"

    @property
    def _place_key(self) -> str:
        return f"{self._prefix}place"

    @contextmanager
    def _converted(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError, TimeoutError) as error:
            raise CopyAwayError(f"{self._shown}: {_kinds(error)}") from error


@asynccontextmanager
async def redis_results(address: RedisAddress, prefix: str, nats: ResultStore) -> AsyncIterator[RedisResults]:
    """The results in that Redis. Nothing is contacted yet, and a Redis that is away is no error."""
    kinds = redis.asyncio.SSLConnection if address.tls else redis.asyncio.Connection
    tls: dict[str, Any] = {"ssl_ca_certs": str(address.ca_file)} if address.tls and address.ca_file else {}
    pool = redis.asyncio.BlockingConnectionPool(
        connection_class=kinds,
        max_connections=MAX_CONNECTIONS,
        timeout=PATIENCE_SECONDS,
        host=address.host,
        port=address.port,
        db=address.database,
        username=address.user,
        password=address.password,
        socket_timeout=PATIENCE_SECONDS,
        socket_connect_timeout=PATIENCE_SECONDS,
        retry=Retry(NoBackoff(), 0),
        **tls,
    )
    client = redis.asyncio.Redis(connection_pool=pool)
    try:
        yield RedisResults(client, prefix, nats, address.shown)
    finally:
        await client.aclose()
        await pool.aclose()


def complete_answers(request_id: str, fields: Mapping[bytes, bytes]) -> Answers | None:
    """Record and results as they stand in Redis, None unless all of them are there and can be read. Pure."""
    if RECORD not in fields:
        return None
    try:
        record = RequestRecord.model_validate_json(fields[RECORD])
        answers = Answers(record, {one.function: one for one in _results(fields.items())})
    except ValueError:
        return None  # of another version, or not ours
    return answers if record.request_id == request_id and answers.complete else None


def _parsed(data: bytes) -> Result | None:
    try:
        return Result.model_validate_json(data)
    except ValueError:
        return None  # of another version, or not ours


def _results(fields: Iterable[tuple[bytes, bytes]]) -> Iterator[Result]:
    for field, data in fields:
        if field.startswith(RESULT):
            yield Result.model_validate_json(data)


def _kinds(error: BaseException) -> str:
    """What failed, in words of ours or by name. Those of server and library are left out: they may repeat what was
    sent. What the TLS library has against a certificate is from a closed list."""
    inner = error.__cause__ or error.__context__
    if isinstance(error, AuthenticationError):
        return "the user or the password is refused"
    if isinstance(error, NoPermissionError):
        return "this user may not use the commands or keys that are needed (docs/operations.md lists them)"
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {inner.verify_message}"
    return type(error).__name__ + (f" ({type(inner).__name__})" if inner is not None else "")


def _field(function: str | None) -> bytes:
    return RECORD if function is None else RESULT + function.encode()


def _milliseconds(time: timedelta) -> int:
    return max(1, int(time.total_seconds() * 1000))
