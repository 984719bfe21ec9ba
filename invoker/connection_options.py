"""Where NATS is and who we are there: a value, and what the library is told of it.

It can be compared and printed (secrets masked). Nothing here reads the environment; `invoker.settings` does.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from invoker.errors import SettingsError
from invoker.identity import check_creds_file, check_nkey_file


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


def identity_arguments(options: ConnectionOptions) -> dict[str, Any]:
    """Who we are. Raises `SettingsError` for files that cannot be used."""
    if options.user is not None:
        return {"user": options.user, "password": options.password or ""}
    if options.token is not None:
        return {"token": options.token}
    if options.nkey_file is not None:
        return {"nkeys_seed": str(check_nkey_file(options.nkey_file))}
    if options.creds_file is not None:
        return {"user_credentials": str(check_creds_file(options.creds_file))}
    return {}


def tls_arguments(options: ConnectionOptions) -> dict[str, Any]:
    """TLS, when an option or the address asks for it. Raises `SettingsError` for files that cannot be used."""
    if options.ca_file or options.cert_file or options.url.startswith("tls://"):
        return {"tls": _tls(options)}
    return {}


def _tls(options: ConnectionOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(options.ca_file) if options.ca_file else None)
        if options.cert_file:
            context.load_cert_chain(options.cert_file, options.key_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"the TLS files for {options.shown} cannot be used: {error}") from error
    return context


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
