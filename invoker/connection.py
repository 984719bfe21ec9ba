"""A connection to NATS, made the way the `nats` command makes it, with its errors turned into ours.

`ConnectionOptions` is a value: it can be compared and printed (secrets masked). Nothing here reads the environment;
`invoker.settings` does.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client as NatsClient

from invoker.errors import (
    BackPressureError,
    InvokerError,
    PayloadTooLargeError,
    ServerUnreachableError,
    SettingsError,
    StreamMismatchError,
)

RECONNECT_WAIT_SECONDS = 0.2
"""nats-py's own default of 2 s would be most of the outage when a server restarts (usable again after 0.8 s)."""
_FULL = {10077, 10023, 10047}
"""JetStream error codes of a stream or store that is full: maximum messages or bytes, insufficient storage."""
_PERMISSION = "permissions violation"

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

    @property
    def shown(self) -> str:
        """The address without credentials, for messages and logs."""
        return ",".join(_without_credentials(part.strip()) for part in self.url.split(","))


async def connect(
    options: ConnectionOptions,
    *,
    timeout: float = 2.0,
    keep_trying: bool = False,
    listener: ConnectionListener | None = None,
) -> NatsClient:
    """A connected client that reconnects for ever, or `ServerUnreachableError` after `timeout` seconds.

    With `keep_trying` the first connect is retried without end too (a controller that is up before its NATS).
    `listener` hears `connected`, `disconnected`, `reconnected`, `closed` and `error: …`.
    """
    arguments = _arguments(options, listener)
    try:
        client = await nats.connect(
            connect_timeout=max(1, round(timeout)),
            allow_reconnect=True,
            max_reconnect_attempts=-1 if keep_trying else 1,
            **arguments,
        )
    except (OSError, TimeoutError, nats.errors.Error, ssl.SSLError) as error:
        raise _unreachable(options, error) from error
    # The limit above is for the first connect only; with it a server that restarts would lose its clients for ever.
    client.options["max_reconnect_attempts"] = -1
    return client


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
    if options.user is not None:
        arguments |= {"user": options.user, "password": options.password or ""}
    elif options.token is not None:
        arguments["token"] = options.token
    elif options.nkey_file is not None:
        arguments["nkeys_seed"] = str(_existing(options.nkey_file, "nkey"))
    elif options.creds_file is not None:
        arguments["user_credentials"] = str(_existing(options.creds_file, "credentials"))
    if options.ca_file or options.cert_file or options.url.startswith("tls://"):
        arguments["tls"] = _tls(options)
    return arguments


def _callbacks(listener: ConnectionListener | None) -> dict[str, Any]:
    async def tell(event: str) -> None:
        if listener is not None:
            await listener(event)

    async def on_error(error: Exception) -> None:
        await tell(f"error: {error}")

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


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise SettingsError(f"the {what} file {path} does not exist")
    return path


def _unreachable(options: ConnectionOptions, error: Exception) -> ServerUnreachableError:
    words = str(error) or type(error).__name__
    if isinstance(error, nats.errors.NoServersError):
        words = "no answer"
    if _PERMISSION in words.lower() or "authorization" in words.lower():
        return ServerUnreachableError(f"NATS at {options.shown} refuses us: {words}", hint="check the credentials")
    return ServerUnreachableError(
        f"NATS at {options.shown} cannot be reached: {words}",
        hint="start one with `invoker dev`, or say where it is with --server or NATS_URL",
    )


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
