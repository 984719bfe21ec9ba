"""A connection to NATS, made the way the `nats` command makes it, with its errors turned into ours.

What is refused here is told in sentences: `invoker.refusals` remembers it, `connection_problems` is for readiness.
"""

from __future__ import annotations

import asyncio
import errno
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from invoker.connection_options import ConnectionOptions as ConnectionOptions
from invoker.connection_options import identity_arguments, tls_arguments
from invoker.errors import (
    BackPressureError,
    InvokerError,
    PayloadTooLargeError,
    ServerUnreachableError,
    StreamMismatchError,
)
from invoker.refusals import Refusals

RECONNECT_WAIT_SECONDS = 0.2
"""nats-py's own default of 2 s would be most of the outage when a server restarts (usable again after 0.8 s)."""
OLDEST_SERVER = (2, 12, 7)
"""Older servers have holes that are known to everybody, and lose or double messages in ways that were mended since."""
STORE_FULL = frozenset((10023, 10047))
"""JetStream error codes of a store that is full, by its own bound or because the disk is: insufficient storage."""
_FULL = {10077, *STORE_FULL}
"""And of a stream that is full: maximum messages or bytes."""
_REFUSAL = re.compile(r"authorization|permissions violation|authentication", re.IGNORECASE)
_GOES_ON = re.compile(r"permissions violation|maximum subscriptions exceeded", re.IGNORECASE)
"""Errors after which the server keeps the connection."""
SUBSCRIBE_AGAIN_SECONDS = 3.0
RIGHTS = "give the NATS user of this part the rights of its role: deploy/nats/permissions.conf"
REFUSED_WAIT_SECONDS = 1.0
"""Who is refused asks less often than who finds nobody: the server writes every refusal into its log."""

UNTRUSTED = "its certificate is not trusted"
_CONNECT_FAILED = re.compile(r"\[Errno (\d+)\] Connect call failed")
_UNTRUSTED = re.compile(r"certificate verify failed: (.+?) \(_ssl")
_RENEW = "renew the server's certificate, or name the authority that signed it (INVOKER_NATS_CA)"

ConnectionListener = Callable[[str], Awaitable[None]]


class RefusedSubjectError(nats.errors.Error):
    """The server does not let this user publish or subscribe there. Its text is a sentence for operators."""


class _Client(NatsClient):
    """nats-py's client, made safe against bytes that are no UTF-8, closed for certain, and by nobody but us.

    A server that ends a connection with words (a password that was changed, a JWT that expired, too many connections)
    would close the library's client for ever. This one comes back as after any lost connection, with the credentials as
    they are then.

    Any publisher may use such a subject or status line, and the server carries it. nats-py ends its read loop on it, so
    one message would keep every controller from reading anything, for ever. Here the bytes arrive as lone surrogates,
    which no rule of `invoker.wire` lets through: the event becomes a dead letter.
    """

    read_again: Callable[[], ConnectionOptions] | None = None
    """Set once the first connect succeeded."""
    trouble: str | None = None
    """Why it is not connected, in the words of the last attempt."""
    _refused = False

    def __init__(self) -> None:
        super().__init__()
        self.refusals = Refusals()
        self._asking_again: set[asyncio.Task[None]] = set()

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """The library's, but a subject that we may not use is said, and at once, instead of waited for in vain."""
        if (words := self.refusals.of_inbox(self._inbox)) is not None:
            raise RefusedSubjectError(words)
        limit = self.refusals.begin(subject)
        try:
            async with limit:
                return await super().request(subject, payload, timeout, old_style, headers)
        except TimeoutError:
            words = self.refusals.of(subject, self._inbox)
            if words is None:
                raise
            raise RefusedSubjectError(words) from None
        finally:
            self.refusals.end(subject, limit)

    @property
    def _inbox(self) -> str:
        """Where the answers to requests come."""
        return f"{(self._resp_sub_prefix or b'').decode()}*"

    def _note_refusal(self, words: str) -> None:
        subject = self.refusals.heard(words, self._inbox_prefix.decode())
        if subject is None:
            return
        if subject == self._inbox:
            self.refusals.inbox_refused()
        task = asyncio.get_running_loop().create_task(self._subscribe_again(subject))
        self._asking_again.add(task)
        task.add_done_callback(self._asking_again.discard)

    async def _subscribe_again(self, subject: str) -> None:
        """A server whose permissions are loaded anew does not come back to what it refused before."""
        await asyncio.sleep(SUBSCRIBE_AGAIN_SECONDS)
        refused = self.refusals.times(subject)
        with suppress(nats.errors.Error, TimeoutError, OSError):
            for one in [one for one in self._subs.values() if one.subject == subject]:
                await self._send_subscribe(one)
            await self.flush()  # a refusal comes before its answer
            if self.refusals.times(subject) == refused:
                self.refusals.mended(subject)

    def _as_written(self, words: str) -> str:
        """The server's words in the letters they came in: the library hands them on in small ones."""
        line = bytes(self._ps.buf).partition(b"\r\n")[0].decode("utf-8", "replace").removeprefix("-ERR").strip()
        return line if line.lower() == words.strip() else words.strip()

    async def _process_err(self, err_msg: str) -> None:
        words = self._as_written(err_msg)
        error = nats.errors.Error(f"nats: {words}")
        await self._error_cb(error)
        if _GOES_ON.search(words):
            self._note_refusal(words)
            return
        self._refused = True
        if self._current_server is not None:
            # Not at once: a server that lets us in and ends it again would be asked without a pause.
            self._current_server.last_attempt = time.monotonic()
        await self._process_op_err(error)

    async def _connect_to_server(self, s: Any) -> None:
        if self.read_again is not None:
            self.abandon()
            refused = self._refused or _REFUSAL.search(str(self._err or ""))
            if refused:
                await asyncio.sleep(REFUSED_WAIT_SECONDS)
            self._be(self.read_again())
            self._refused = False
            self.refusals.forget()
        await super()._connect_to_server(s)

    def abandon(self) -> None:
        """Close what the attempt before has opened, which the library forgets; under TLS the bare connection too."""
        transport: Any = self._transport
        if transport is not None:
            transport.close()
            if (bare := getattr(transport, "_bare_io_writer", None)) is not None:
                bare.close()

    def _be(self, options: ConnectionOptions) -> None:
        """Whoever these options say, from the next connection on. Raises `SettingsError`, and stays who it was."""
        who, tls = identity_arguments(options), tls_arguments(options)
        self.options |= {key: who.get(key) for key in ("user", "password", "token")}
        self._nkeys_seed, self._user_credentials = who.get("nkeys_seed"), who.get("user_credentials")
        self._signature_cb = self._user_jwt_cb = self._public_nkey = None
        if self._nkeys_seed is not None or self._user_credentials is not None:
            self._setup_nkeys_connect()
        self.options |= tls

    async def close(self) -> None:
        # Before Python 3.12 a reconnecting task may swallow its cancellation; without addresses it ends by itself.
        self._server_pool.clear()
        for task in list(self._asking_again):
            task.cancel()
        try:
            await super().close()
        except (OSError, AttributeError):
            # What it still had to send met a connection that was lost a moment ago (under TLS, a part of asyncio that
            # is None then), and it stopped half-way. Without it, it comes to its end the second time.
            self._status = NatsClient.DISCONNECTED
            self._pending, self._pending_data_size = [], 0
            await super().close()

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        return self.msg_class(
            subject=subject.decode("utf-8", "surrogateescape"),
            reply=reply.decode("utf-8", "surrogateescape"),
            data=data,
            headers=headers,
            _client=self,
            _sid=sid,
        )

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """The same as the library's, which looks at every character by itself: that is most of what a header costs."""
        found: dict[str, str] = {}
        for line in raw.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon and name.isascii():
                key = name.strip().decode("ascii")
                if not key or key.split() == [key]:  # a name has no white space inside
                    found[key] = value.strip().decode("utf-8", "replace")
        return found

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except (UnicodeDecodeError, ValueError, IndexError):
            return {}


async def connect(
    options: ConnectionOptions,
    *,
    timeout: float = 2.0,
    keep_trying: bool = False,
    listener: ConnectionListener | None = None,
) -> NatsClient:
    """A connected client that reconnects for ever, or `ServerUnreachableError`.

    It reconnects after refusals too, as whoever `options.read_again` says then: what ends it is its own `close` only.
    An attempt gets `timeout` seconds, each address two attempts. With `keep_trying` the first connect is retried
    without end too (a controller that is up before its NATS). `listener` hears `disconnected`, `reconnected`, `closed`
    and `error: …`.
    """
    while True:
        try:
            return await _connected(options, timeout, listener)
        except ServerUnreachableError as error:
            if not keep_trying:
                raise
            if listener is not None:
                await listener(f"error: {error.message}")
            await asyncio.sleep(RECONNECT_WAIT_SECONDS)


async def _connected(options: ConnectionOptions, timeout: float, listener: ConnectionListener | None) -> NatsClient:
    heard: deque[str] = deque(maxlen=8)
    established = False

    async def listening(event: str) -> None:
        if event == "reconnected":
            client.trouble = None
        elif event.startswith("error: ") and not _GOES_ON.search(event):
            client.trouble = event.removeprefix("error: ")
        if established and listener is not None:
            await listener(event)
        elif event.startswith("error: "):
            heard.append(event.removeprefix("error: "))
            if UNTRUSTED in event and attempts == 2:
                limit.reschedule(asyncio.get_running_loop().time())  # the library would wait in vain

    client = _Client()
    attempts = len(options.url.split(",")) * 2
    # A limit of our own: the library waits for ever when a TLS handshake fails.
    limit = asyncio.timeout(attempts * (timeout + RECONNECT_WAIT_SECONDS))
    try:
        async with limit:
            await client.connect(
                connect_timeout=max(1, round(timeout)), max_reconnect_attempts=1, **_arguments(options, listening)
            )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        client.abandon()
        raise _unreachable(options, error, heard) from error
    # The limit above is for the first connect only; with it a server that restarts would lose its clients for ever.
    client.options["max_reconnect_attempts"] = -1
    client.read_again = options.read_again or (lambda: options)
    client.trouble = None
    established = True
    return client


def connection_problems(client: NatsClient, instance: str) -> list[str]:
    """What keeps a part of that instance from its work with NATS, in words; empty when nothing does."""
    if not client.is_connected:
        trouble = client.trouble if isinstance(client, _Client) else None
        return [f"nats: not connected: {trouble}" if trouble else "nats: not connected"]
    return [f"nats: {words}" for words in client.refusals.standing(instance)] if isinstance(client, _Client) else []


def words_about_server(client: NatsClient) -> str | None:
    """What an operator must know of the server that the client is connected to; None when it is new enough."""
    try:
        version = client.connected_server_version
        found = (version.major, version.minor, version.patch)
    except ValueError:
        return None  # a version of somebody's own making
    return too_old(found)


def too_old(found: tuple[int, int, int]) -> str | None:
    """The sentence about a server of that version, None from `OLDEST_SERVER` on. Pure."""
    if found >= OLDEST_SERVER:
        return None
    shown, wanted = (".".join(map(str, version)) for version in (found, OLDEST_SERVER))
    return f"the NATS server has version {shown}: it has known holes; {wanted} or newer is needed"


@contextmanager
def nats_errors(what: str) -> Iterator[None]:
    """Turn every error of the NATS client into one of ours; `what` names the thing that was being done.

    Full streams become `BackPressureError`, answers that never came and lost connections `ServerUnreachableError`,
    messages the server would not carry `PayloadTooLargeError`, the rest `InvokerError` with the server's own words.
    """
    try:
        yield
    except InvokerError:
        raise
    except nats.errors.MaxPayloadError as error:
        raise PayloadTooLargeError(f"{what}: larger than the server's max_payload") from error
    except nats.js.errors.NoStreamResponseError as error:
        raise ServerUnreachableError(f"{what}: no stream answers", hint="is the controller set up?") from error
    except nats.js.errors.ServiceUnavailableError as error:
        if error.err_code in _FULL:
            raise BackPressureError(f"{what}: {error.description}") from error
        raise ServerUnreachableError(
            f"{what}: JetStream is not available ({error.description or 'no answer'})",
            hint="start the server with JetStream enabled",
        ) from error
    except nats.js.errors.APIError as error:
        if error.err_code in _FULL:
            raise BackPressureError(f"{what}: {error.description}") from error
        raise StreamMismatchError(f"{what}: {error.description or error} (JetStream {error.err_code})") from error
    except (nats.errors.TimeoutError, TimeoutError) as error:
        raise ServerUnreachableError(
            f"{what}: NATS did not answer in time",
            hint="is the server up, has its disk room, and may this user do that?",
        ) from error
    except RefusedSubjectError as error:
        raise ServerUnreachableError(f"{what}: {error}", hint=RIGHTS) from error
    except nats.errors.NoRespondersError as error:
        raise ServerUnreachableError(f"{what}: nobody answers there", hint="is a controller running?") from error
    except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
        raise ServerUnreachableError(f"{what}: {error or type(error).__name__}") from error


def _arguments(options: ConnectionOptions, listener: ConnectionListener | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "servers": [part.strip() for part in options.url.split(",")],
        "name": options.name,
        "reconnect_time_wait": RECONNECT_WAIT_SECONDS,
        "ping_interval": 20,
        "pending_size": 16 * 1024 * 1024,
        **_callbacks(listener),
    }
    if options.inbox_prefix:
        arguments["inbox_prefix"] = options.inbox_prefix
    return arguments | identity_arguments(options) | tls_arguments(options)


def _callbacks(listener: ConnectionListener | None) -> dict[str, Any]:
    async def tell(event: str) -> None:
        if listener is not None:
            await listener(event)

    async def on_error(error: Exception) -> None:
        await tell(f"error: {_plain(str(error)) or type(error).__name__}")

    async def on_disconnected() -> None:
        await tell("disconnected")

    async def on_reconnected() -> None:
        await tell("reconnected")

    async def on_closed() -> None:
        await tell("closed")

    # Always given: nats-py's default error callback logs a traceback to stderr, which is never for a user.
    return {
        "error_cb": on_error,
        "disconnected_cb": on_disconnected,
        "reconnected_cb": on_reconnected,
        "closed_cb": on_closed,
    }


def _unreachable(options: ConnectionOptions, error: Exception, heard: Iterable[str]) -> ServerUnreachableError:
    """What went wrong, in the most telling words of all attempts: the library's own error says that none is left."""
    said = () if isinstance(error, nats.errors.NoServersError | TimeoutError) else (str(error) or type(error).__name__,)
    own = [_plain(one) for one in said]
    words = [one for one in (*own, *heard) if one] or ["no answer"]
    refusal = next((one for one in words if _REFUSAL.search(one)), None)
    if refusal is not None:
        return ServerUnreachableError(f"NATS at {options.shown} refuses us: {refusal}", hint="check the credentials")
    told = next((one for one in words if "certificate" in one.lower() or "ssl" in one.lower()), words[-1])
    if told.startswith(UNTRUSTED):
        return ServerUnreachableError(f"NATS at {options.shown} cannot be reached: {told}", hint=_RENEW)
    return ServerUnreachableError(
        f"NATS at {options.shown} cannot be reached: {told}",
        hint="start one with `invoker dev`, or say where it is with --server or NATS_URL",
    )


def _plain(words: str) -> str:
    """What the libraries say of a refused certificate or connection, without the names of their own parts."""
    found = _UNTRUSTED.search(words)
    if found is not None:
        return f"{UNTRUSTED}: {found[1]}"
    # A name with several addresses (localhost, often) has one of these for each.
    return "connection refused" if str(errno.ECONNREFUSED) in _CONNECT_FAILED.findall(words) else words
