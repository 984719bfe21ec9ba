"""The address of a Redis as a setting has it, taken apart and checked. Pure; no message repeats a secret."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from invoker.errors import SettingsError

DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis is, and who we are there. `ca_file` is only used with `tls`, None trusts the system's."""

    host: str
    port: int = DEFAULT_PORT
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: Path | None = None

    @property
    def shown(self) -> str:
        """The address without user and password, for people and logs."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"


def parse_address(text: str, ca_file: Path | None = None) -> RedisAddress:
    """The address in `redis[s]://[[user]:password@]host[:port][/number]`. Raises `SettingsError` for another text."""
    try:
        parts = urlsplit(text)
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise _refused("its port is no number from 1 to 65535, or its brackets are wrong") from None
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise _refused("it is not like redis://user:password@host:6379/0")
    if parts.query or parts.fragment:
        raise _refused("it has a part behind '?' or '#'; a password with such characters is written with %3F and %23")
    if ca_file is not None and parts.scheme == "redis":
        raise SettingsError("INVOKER_RESULTS_CA is for TLS: begin INVOKER_RESULTS with rediss://")
    if ca_file is not None and not ca_file.is_file():
        raise SettingsError(f"INVOKER_RESULTS_CA: the file {ca_file} does not exist")
    user, password = (unquote(one) if one else None for one in (parts.username, parts.password))
    if user and not password:
        raise _refused("it has a user and no password")
    return RedisAddress(
        parts.hostname, port, _database(parts), user, password, tls=parts.scheme == "rediss", ca_file=ca_file
    )


def _database(parts: SplitResult) -> int:
    number = parts.path.removeprefix("/")
    if not number:
        return 0
    if not (number.isascii() and number.isdigit() and len(number) < 6):
        raise _refused("behind the host there may only be the number of a database")
    return int(number)


def _refused(why: str) -> SettingsError:
    return SettingsError(f"INVOKER_RESULTS: the address cannot be used: {why}")
