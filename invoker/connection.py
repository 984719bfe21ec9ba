"""A connection to NATS, made the way the `nats` command makes it, with its errors turned into ours.

`ConnectionOptions` is a value: it can be compared and printed (secrets masked). Nothing here reads the environment;
`invoker.settings` does.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import nats.errors
import nats.js.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from invoker.errors import (
    BackPressureError,
    InvokerError,
    PayloadTooLargeError,
    ServerUnreachableError,
    SettingsError,
    StreamMismatchError,
)
from invoker.identity import check_creds_file, check_nkey_file

RECONNECT_WAIT_SECONDS = 0.2
"""nats-py's own default of 2 s would be most of the outage when a server restarts (usable again after 0.8 s)."""
OLDEST_SERVER = (2, 12, 7)
"""Older servers have holes that are known to everybody, and lose or double messages in ways that were mended since."""
_FULL = {10077, 10023, 10047}
"""JetStream error codes of a stream or store that is full: maximum messages or bytes, insufficient storage."""
_REFUSAL = re.compile(r"authorization|permissions violation|authentication", re.IGNORECASE)
_GOES_ON = re.compile(r"permissions violation|maximum subscriptions exceeded", re.IGNORECASE)
"""Errors after which the server keeps the connection."""
REFUSED_WAIT_SECONDS = 1.0
"""Who is refused asks less often than who finds nobody: the server writes every refusal into its log."""

ConnectionListener = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Where NATS is and who we are there. At most one of user/password, token, nkey, creds is used, in that order."""

    url: str = "nats://127.0.0.1:4222"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    nkey_file: Path | None = None
    creds_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    inbox_prefix: str | None = None
    name: str = "invoker"
    origin: str = field(default="given", compare=False)
    """What named the address (an argument, a variable, a file), for `-v`."""
    read_again: Callable[[], ConnectionOptions] | None = field(default=None, repr=False, compare=False)
    """Called before every attempt to come back: who we are then. A changed password needs no new start with it."""

    @property
    def shown(self) -> str:
        """The address without credentials, for messages and logs."""
        return ",".join(_without_credentials(part.strip()) for part in self.url.split(","))


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
    _refused = False

    async def _process_err(self, err_msg: str) -> None:
        error = nats.errors.Error(f"nats: {err_msg.strip()}")
        await self._error_cb(error)
        if _GOES_ON.search(err_msg):
            return
        self._refused = True
        if self._current_server is not None:
            # Not at once: a server that lets us in and ends it again would be asked without a pause.
            self._current_server.last_attempt = time.monotonic()
        await self._process_op_err(error)

    async def _connect_to_server(self, s: Any) -> None:
        if self.read_again is not None:
            if self._transport is not None:
                # That of the attempt before, which the library forgets.
                self._transport.close()  # type: ignore[no-untyped-call]  # the library has no types there
            refused = self._refused or _REFUSAL.search(str(self._err or ""))
            if refused:
                await asyncio.sleep(REFUSED_WAIT_SECONDS)
            self._be(self.read_again())
            self._refused = False
        await super()._connect_to_server(s)

    def _be(self, options: ConnectionOptions) -> None:
        """Whoever these options say, from the next connection on. Raises `SettingsError`, and stays who it was."""
        who, tls = _identity(options), _tls_if_wanted(options)
        self.options |= {key: who.get(key) for key in ("user", "password", "token")}
        self._nkeys_seed, self._user_credentials = who.get("nkeys_seed"), who.get("user_credentials")
        self._signature_cb = self._user_jwt_cb = self._public_nkey = None
        if self._nkeys_seed is not None or self._user_credentials is not None:
            self._setup_nkeys_connect()
        self.options |= tls

    async def close(self) -> None:
        # Before Python 3.12 a reconnecting task may swallow its cancellation; without addresses it ends by itself.
        self._server_pool.clear()
        try:
            await super().close()
        except OSError:
            # What it still had to send met a connection that was lost a moment ago, and it stopped half-way. Nothing is
            # left to be sent now, so the second time it comes to its end.
            self._status = NatsClient.DISCONNECTED
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
        if established and listener is not None:
            await listener(event)
        elif event.startswith("error: "):
            heard.append(event.removeprefix("error: "))

    client = _Client()
    attempts = len(options.url.split(",")) * 2
    try:
        # A limit of our own: the library waits for ever when a TLS handshake fails.
        async with asyncio.timeout(attempts * (timeout + RECONNECT_WAIT_SECONDS)):
            await client.connect(
                connect_timeout=max(1, round(timeout)), max_reconnect_attempts=1, **_arguments(options, listening)
            )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise _unreachable(options, error, heard) from error
    # The limit above is for the first connect only; with it a server that restarts would lose its clients for ever.
    client.options["max_reconnect_attempts"] = -1
    client.read_again = options.read_again or (lambda: options)
    established = True
    return client


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
            f"{what}: NATS did not answer in time", hint="is the server up, and may this user do that?"
        ) from error
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
    return arguments | _identity(options) | _tls_if_wanted(options)


def _identity(options: ConnectionOptions) -> dict[str, Any]:
    if options.user is not None:
        return {"user": options.user, "password": options.password or ""}
    if options.token is not None:
        return {"token": options.token}
    if options.nkey_file is not None:
        return {"nkeys_seed": str(check_nkey_file(options.nkey_file))}
    if options.creds_file is not None:
        return {"user_credentials": str(check_creds_file(options.creds_file))}
    return {}


def _tls_if_wanted(options: ConnectionOptions) -> dict[str, Any]:
    if options.ca_file or options.cert_file or options.url.startswith("tls://"):
        return {"tls": _tls(options)}
    return {}


def _callbacks(listener: ConnectionListener | None) -> dict[str, Any]:
    async def tell(event: str) -> None:
        if listener is not None:
            await listener(event)

    async def on_error(error: Exception) -> None:
        await tell(f"error: {str(error) or type(error).__name__}")

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


def _tls(options: ConnectionOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(options.ca_file) if options.ca_file else None)
        if options.cert_file:
            context.load_cert_chain(options.cert_file, options.key_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"the TLS files for {options.shown} cannot be used: {error}") from error
    return context


def _unreachable(options: ConnectionOptions, error: Exception, heard: Iterable[str]) -> ServerUnreachableError:
    """What went wrong, in the most telling words of all attempts: the library's own error says that none is left."""
    own = () if isinstance(error, nats.errors.NoServersError | TimeoutError) else (str(error) or type(error).__name__,)
    words = [one for one in (*own, *heard) if one] or ["no answer"]
    refusal = next((one for one in words if _REFUSAL.search(one)), None)
    if refusal is not None:
        return ServerUnreachableError(f"NATS at {options.shown} refuses us: {refusal}", hint="check the credentials")
    told = next((one for one in words if "certificate" in one.lower() or "ssl" in one.lower()), words[-1])
    return ServerUnreachableError(
        f"NATS at {options.shown} cannot be reached: {told}",
        hint="start one with `invoker dev`, or say where it is with --server or NATS_URL",
    )


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
