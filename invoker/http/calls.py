"""Calls of a gateway: the only module that knows the HTTP library. Problem documents come out as our errors.

What is repeated here after a cut connection is what only reads. Whether anything else may be repeated its caller says.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from invoker import wire
from invoker.errors import InvokerError, ServerUnreachableError, SettingsError, UnauthorizedError
from invoker.http.settings import GatewayOptions
from invoker.problem import error_of_problem, parsed_problem
from invoker.version import __version__

PAUSES_SECONDS = (0.1, 0.4)
"""Before a call is repeated whose connection broke."""
RESUME_SECONDS = 0.5
PATIENCE_SECONDS = 60.0
"""How long something that had begun is tried to be gone on with while the gateway is away."""
CONNECTED = "connected"
"""Name of an event of our own: the gateway has begun to tell."""
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 60.0
"""The longest silence of a gateway within a call; streams of events have a sign of life every 15 s."""
_MAX_PROBLEM_BYTES = 1024 * 1024

Query = Mapping[str, str | int | float]
Body = bytes | AsyncIterable[bytes]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a gateway. `wait` is how many seconds it may take on top of what any call may."""

    method: str
    path: str
    query: Query | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    wait: float = 0.0


class CutError(ServerUnreachableError):
    """The gateway was not reached, or the connection broke: nobody knows what became of the call."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a gateway answered: a document, None for an empty answer."""

    status: int
    headers: Mapping[str, str]
    document: Any = None


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event of a stream of events."""

    name: str
    document: Any
    id: str | None = None


class Patience:
    """How long something is followed at a gateway that is away: two more tries before it began, a minute afterwards."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._early = list(PAUSES_SECONDS)

    def renew(self) -> None:
        """Something came."""
        self._since = asyncio.get_running_loop().time()

    async def pause(self, error: ServerUnreachableError) -> None:
        """Wait before the next try, or raise the error: there is no patience left."""
        if self._since is None:
            if not self._early or not isinstance(error, CutError):
                raise error
            await asyncio.sleep(self._early.pop(0))
            return
        if asyncio.get_running_loop().time() - self._since > PATIENCE_SECONDS:
            raise error
        await asyncio.sleep(RESUME_SECONDS)


class Calls:
    """The calls of one gateway, over connections that are kept."""

    def __init__(self, options: GatewayOptions) -> None:
        self._options = options
        headers = {"User-Agent": f"invoker/{__version__}"}
        if options.key is not None:
            headers["Authorization"] = f"Bearer {options.key}"
        # Redirects are not followed: the key belongs to the address that was given.
        self._http = httpx2.AsyncClient(
            headers=headers, follow_redirects=False, verify=_trusted(options),
            timeout=httpx2.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS, pool=None),
        )  # fmt: skip

    async def close(self) -> None:
        await self._http.aclose()

    @property
    def is_closed(self) -> bool:
        return self._http.is_closed

    async def get(self, path: str, query: Query | None = None) -> Answer:
        """The document at that path; a call whose connection broke is repeated. Raises the answer's problem."""
        return await self.repeated(lambda: self.once(Call("GET", path, query)))

    async def post(self, path: str, document: Any = None) -> Answer:
        """The answer to a small document; never repeated."""
        if document is None:
            return await self.once(Call("POST", path))
        body = json.dumps(document).encode()
        return await self.once(Call("POST", path, headers={"Content-Type": "application/json"}, body=body))

    async def repeated(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """A call that is safe to repeat, with another try or two when its connection breaks."""
        for pause in PAUSES_SECONDS:
            try:
                return await call()
            except CutError:
                await asyncio.sleep(pause)
        return await call()

    async def once(self, call: Call) -> Answer:
        """The call with its whole answer. Raises its problem."""
        async with self.opened(call) as (answer, chunks):
            data = b"".join([chunk async for chunk in chunks])
        if not data:
            return answer
        document = parsed_problem(data)
        if document is None:
            raise self._no_gateway(answer.status)
        return Answer(answer.status, answer.headers, document)

    @asynccontextmanager
    async def opened(self, call: Call) -> AsyncIterator[tuple[Answer, AsyncGenerator[bytes, None]]]:
        """An answer while its bytes come. Raises its problem, and `CutError` for what breaks."""
        async with self._response(call) as response:
            answer = Answer(response.status_code, response.headers)
            async with aclosing(self._chunks(response)) as chunks:
                yield answer, chunks

    async def events(
        self, path: str, query: Query | None = None, *, resumable: bool = True
    ) -> AsyncGenerator[ServerEvent, None]:
        """The events of a stream to its `end`, `connected` before them; one that breaks is gone on with behind the last
        event that came.

        Not `resumable`: then `CutError` tells. Raises `CutError` too when the gateway stays away for a minute.
        """
        last: str | None = None
        patience = Patience()
        while True:
            try:
                async with aclosing(self._events_once(path, query, last)) as events:
                    async for event in events:
                        patience.renew()
                        last = event.id or last
                        yield event
                        if event.name == "end":
                            return
                if not resumable:
                    raise CutError(f"the gateway {self._options.url} ended the stream before its end")
            except _NothingMoreError:
                return
            except ServerUnreachableError as error:
                if not resumable:
                    raise
                await patience.pause(error)
                continue
            await asyncio.sleep(RESUME_SECONDS)

    async def _events_once(self, path: str, query: Query | None, last: str | None) -> AsyncGenerator[ServerEvent, None]:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if last is not None:
            headers["Last-Event-ID"] = last
        async with self._response(Call("GET", path, query, headers)) as response:
            if response.status_code == 204:
                raise _NothingMoreError
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise self._no_gateway(response.status_code)
            yield ServerEvent(CONNECTED, None)
            with self._errors():
                async for event in httpx2.EventSource(response):
                    yield ServerEvent(event.event, json.loads(event.data or "null"), event.id or None)

    @asynccontextmanager
    async def _response(self, call: Call) -> AsyncIterator[httpx2.Response]:
        """The answer, refusals raised. Why no `with` around the yield: errors of whoever reads are not ours."""
        with self._errors():
            request = self._http.build_request(
                call.method, self._options.url + call.path, params=dict(call.query) if call.query else None,
                headers=_encoded(call.headers), content=call.body,
                timeout=httpx2.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS, read=call.wait + _ANSWER_SECONDS),
            )  # fmt: skip
            response = await self._http.send(request, stream=True)
        try:
            # A run that failed is an answer, whatever its status; the rest are refusals.
            if response.status_code >= 300 and wire.H_STATE not in response.headers:
                raise await self._refusal(response)
            yield response
        finally:
            await response.aclose()

    async def _chunks(self, response: httpx2.Response) -> AsyncGenerator[bytes, None]:
        with self._errors():
            async for chunk in response.aiter_bytes():
                yield chunk

    async def _refusal(self, response: httpx2.Response) -> InvokerError:
        """The error that an answer tells."""
        data = bytearray()
        async with aclosing(self._chunks(response)) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > _MAX_PROBLEM_BYTES:
                    break
        document = parsed_problem(bytes(data))
        if document is None or "code" not in document:
            return self._no_gateway(response.status_code)
        hint = document.get("hint")
        if isinstance(hint, str) and hint.startswith(("GET ", "POST ", "?")):
            document.pop("hint")  # for who writes HTTP by hand
        error = error_of_problem(document)
        if isinstance(error, UnauthorizedError):
            words = "name its file with --gateway-key-file, or INVOKER_GATEWAY_KEY_FILE"
            whose = f"the key is from {self._options.key_origin}" if self._options.key else "no key was shown"
            error.hint = f"{whose}; {words}"
        return error

    def _no_gateway(self, status: int) -> InvokerError:
        words = f"what answers at {self._options.url} is no gateway of Invoker, or a proxy before one (HTTP {status})"
        return ServerUnreachableError(words, hint=f"{self._options.origin} says where the gateway is")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The library's errors as ours, without what may hold a header's value."""
        try:
            yield
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise self._cut(error) from None
        except (httpx2.InvalidURL, httpx2.StreamError, ValueError) as error:
            raise InvokerError(f"the call of the gateway failed ({type(error).__name__})") from error

    def _cut(self, error: Exception) -> CutError:
        kind = type(error)
        if issubclass(kind, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
            words = f"no gateway answers at {self._options.url}: {error or kind.__name__}"
        elif issubclass(kind, httpx2.TimeoutException):
            words = f"the gateway {self._options.url} does not answer ({kind.__name__})"
        else:
            words = f"the connection to the gateway {self._options.url} broke: {str(error) or kind.__name__}"
        return CutError(words, hint=f"{self._options.origin} says where the gateway is", try_command="invoker gateway")


class _NothingMoreError(Exception):
    """The stream has been told to its end."""


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The headers as bytes; values that are no ASCII as UTF-8, which the gateway reads."""
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _trusted(options: GatewayOptions) -> ssl.SSLContext | bool:
    if options.url.startswith("http://"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and spares a command the reading of them all
    if options.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"INVOKER_GATEWAY_CA: {options.ca_file} holds no certificates") from error
