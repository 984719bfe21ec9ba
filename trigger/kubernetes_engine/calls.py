"""One call to the API server: sent, repeated while that may help, and every kind of trouble turned into `ApiFailure`.

aiohttp and its exceptions end here and in `access.py`. Bodies are bytes in both directions.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp
from yarl import URL

from trigger.kubernetes_engine.access import Channel, OpenAccess
from trigger.kubernetes_engine.failures import NOT_TRUSTED, ApiFailure, failure_of, no_answer
from trigger.kubernetes_engine.retries import Patience, pause_before_repeating

T = TypeVar("T")

OnRequest = Callable[[str, int], None]
"""Told of every attempt: its verb and the HTTP status, 0 when no answer came."""

JSON = "application/json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
LARGE_BODY_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """What is sent. `verb` is Kubernetes' word for it (create, get, list, …); `path` carries its query, both quoted."""

    verb: str
    method: str
    path: str
    body: bytes | None = None
    content_type: str = JSON
    final: frozenset[int] = frozenset()
    """Statuses that are the caller's answer, though they would be repeated otherwise."""
    is_wanted: Callable[[], bool] = lambda: True
    """Asked before the call is repeated: once it is not wanted any more, its last failure is its answer."""


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How long calls are waited for, in seconds, and how much one of them brings."""

    patience: Patience = field(default_factory=Patience)
    connect_seconds: float = 5.0
    answer_seconds: float = 30.0
    """A call that hears nothing for so long counts as not answered."""
    silent_watch_seconds: float = 75.0
    """A watch that hears nothing for so long counts as cut: the API server sends a bookmark every minute."""
    page_objects: int = 500
    """How many objects a list asks for at once."""


class Caller:
    """Sends calls and repeats them; safe for any number of tasks."""

    def __init__(self, access: OpenAccess, limits: CallLimits, on_request: OnRequest | None) -> None:
        self._access = access
        self._limits = limits
        self._on_request = on_request or (lambda verb, status: None)
        self._answer_timeout = self._timeout(limits.answer_seconds)

    async def send(self, call: Call) -> bytes:
        """The body of a successful answer. Raises `ApiFailure` once repeating does not help or took too long.

        A call may so be done twice by the API server: only effects that can be repeated are sent.
        """
        return await self._persist(call, self._exchange)

    @asynccontextmanager
    async def stream(self, call: Call, silent_seconds: float | None) -> AsyncIterator[AsyncIterator[bytes]]:
        """The chunks of an answer that goes on, once it has begun; beginning is repeated, what comes after is not.

        The chunks end when the API server ends them; a connection that is cut, or silent for `silent_seconds`,
        raises `ApiFailure` of status 0.
        """
        timeout = self._timeout(silent_seconds)
        channel, response = await self._persist(call, lambda one: self._open(one, timeout))
        try:
            yield _Chunks(response)
        finally:
            _drop(response)
            await self._access.leave(channel)

    async def _persist(self, call: Call, attempt: Callable[[Call], Awaitable[T]]) -> T:
        began, attempts, renewed = time.monotonic(), 0, False
        while True:
            generation = self._access.generation
            try:
                return await attempt(call)
            except ApiFailure as failure:
                if failure.status == 401 and not renewed:
                    renewed = True
                    await self._access.renew(generation)
                    continue  # also when nothing new was found: a starting API server refuses good tokens for a moment
                attempts += 1
                await self._pause(call, failure, attempts, time.monotonic() - began)

    async def _pause(self, call: Call, failure: ApiFailure, attempts: int, elapsed_seconds: float) -> None:
        """Waits until the next attempt, or raises the failure that ends the call."""
        if failure.status in call.final:
            raise failure
        pause = pause_before_repeating(self._limits.patience, failure, attempts, elapsed_seconds, random.random())
        if pause is None:
            raise failure
        await asyncio.sleep(pause)
        if not call.is_wanted():
            raise failure

    async def _exchange(self, call: Call) -> bytes:
        channel = await self._access.enter()
        try:
            response = await self._begin(call, channel, channel.calls, self._answer_timeout)
            with _as_failure():
                return await response.read()
        finally:
            await self._access.leave(channel)

    async def _open(self, call: Call, timeout: aiohttp.ClientTimeout) -> tuple[Channel, aiohttp.ClientResponse]:
        channel = await self._access.enter()
        try:
            return channel, await self._begin(call, channel, channel.streams, timeout)
        except BaseException:
            await self._access.leave(channel)
            raise

    async def _begin(
        self, call: Call, channel: Channel, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """The answer to one attempt, from its first line on, when it is a success."""
        headers = dict(self._access.authorization)
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        generation, status = self._access.generation, 0
        try:
            with _as_failure():
                response = await session.request(
                    call.method, URL(channel.server + call.path, encoded=True),
                    data=_in_pieces(call.body), headers=headers, timeout=timeout, **channel.options,
                )  # fmt: skip
                status = response.status
                if status >= 300:
                    raise failure_of(status, await response.read(), response.headers.get("Retry-After"))
                return response
        except ApiFailure as failure:
            if isinstance(failure.__cause__, (aiohttp.ClientSSLError, ssl.SSLError)):
                await self._access.renew(generation)  # the cluster's certificates may have changed
            raise
        finally:
            self._on_request(call.verb, status)

    def _timeout(self, silent_seconds: float | None) -> aiohttp.ClientTimeout:
        # No total: waiting for a free connection, and a long answer that keeps coming, are no trouble.
        return aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_seconds, sock_read=silent_seconds)


def _in_pieces(body: bytes | None) -> bytes | io.BytesIO | None:
    """The body as it is sent: a large one (code, with its bytes as base64) not in one write, of which aiohttp warns."""
    return io.BytesIO(body) if body is not None and len(body) > LARGE_BODY_BYTES else body


def _drop(response: aiohttp.ClientResponse) -> None:
    """Lets go of an answer that may go on. Aborted, because a TLS goodbye would wait for the other side's."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()
    response.close()


class _Chunks:
    """The bytes of an answer as they come. No generator: it holds nothing that had to be closed in its turn."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _as_failure():
            chunk = await self._content.readany()
        if not chunk:
            raise StopAsyncIteration
        return chunk


@contextmanager
def _as_failure() -> Iterator[None]:
    """Trouble of the connection as `ApiFailure` of status 0, with the original as its cause."""
    try:
        yield
    except TimeoutError as error:
        raise no_answer("no answer in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise no_answer(_words(error)) from error


def _words(error: Exception) -> str:
    """What went wrong with the connection, as the system says it and without aiohttp's own names for it. Pure."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        return f"{NOT_TRUSTED}: {getattr(cause, 'verify_message', '') or cause}"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        words = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror
        return words or str(error)
    return str(error) or type(error).__name__
