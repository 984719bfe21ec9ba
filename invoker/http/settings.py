"""Where a client finds its gateway, and the key it shows there. Beside `invoker.settings` the only reader of the
environment on the client's side.

A key is never an argument: other users of a machine see those. It comes from a file, or from the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from invoker.errors import SettingsError

_ENVIRON = os.environ  # noqa: TID251 - this is a settings module of the client's side
URL, KEY, KEY_FILE, CA = "INVOKER_GATEWAY_URL", "INVOKER_GATEWAY_KEY", "INVOKER_GATEWAY_KEY_FILE", "INVOKER_GATEWAY_CA"


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """Where a gateway is, the API key or token to show there, and who vouches for its certificate."""

    url: str
    key: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    origin: str = field(default="given", compare=False)
    """What named the address (an option, a variable), for `-v`."""
    key_origin: str | None = field(default=None, compare=False)

    @property
    def shown(self) -> str:
        """The address, how it was found, and where the key is from; never the key."""
        return f"{self.url} ({self.origin}{f', key from {self.key_origin}' if self.key_origin else ''})"


def gateway_options(
    url: str | None = None,
    key_file: str | Path | None = None,
    environ: Mapping[str, str] = _ENVIRON,
) -> GatewayOptions | None:
    """The gateway that the arguments or `INVOKER_GATEWAY_URL` name, None when nothing does.

    The key is the first line of the file, else `INVOKER_GATEWAY_KEY`, else the first line of the file that
    `INVOKER_GATEWAY_KEY_FILE` names. Raises `SettingsError`, which never repeats a key. Nothing is contacted.
    """
    given, origin = (url, "--gateway") if url is not None else (environ.get(URL), URL)
    if not given:
        if key_file is not None:
            raise SettingsError(f"--gateway-key-file is of no use without --gateway or {URL}")
        return None
    key, key_origin = _key(key_file, environ)
    ca = environ.get(CA)
    if ca and not Path(ca).expanduser().is_file():
        raise SettingsError(f"{CA}: the file {ca} does not exist")
    ca_file = Path(ca).expanduser() if ca else None
    return GatewayOptions(checked_url(given, origin), key, ca_file, origin, key_origin)


def checked_url(text: str, named_by: str) -> str:
    """The address of a gateway, without a slash at its end. Raises `SettingsError`. Pure."""
    try:
        parts = urlsplit(text.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    shown = re.sub(r"[^/]*@", "", text)  # what stands before an @ may be a password
    if not usable or not text.isprintable() or " " in text.strip():
        raise SettingsError(f"{named_by}: {shown!a} is not the address of a gateway such as http://127.0.0.1:8080")
    if "@" in parts.netloc:
        raise SettingsError(f"{named_by}: no name or password belongs into {shown!a}", hint=f"{KEY_FILE} names a file")
    if parts.query or parts.fragment:
        raise SettingsError(f"{named_by}: {shown!a} must end with its host, port or path")
    return text.strip().rstrip("/")


def _key(key_file: str | Path | None, environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The key and what named it."""
    if key_file is not None:
        return _of_file(Path(key_file), "--gateway-key-file"), f"the file {key_file}"
    if environ.get(KEY):
        return _sendable(environ[KEY].strip(), KEY), KEY
    if environ.get(KEY_FILE):
        return _of_file(Path(environ[KEY_FILE]), KEY_FILE), KEY_FILE
    return None, None


def _of_file(path: Path, named_by: str) -> str:
    try:
        lines = path.expanduser().read_text().split("\n")
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"{named_by}: {path} cannot be read: {words}") from error
    return _sendable(lines[0].strip(), named_by)


def _sendable(key: str, named_by: str) -> str:
    """The key, when a header can carry it."""
    if not key or not all("!" <= character <= "~" for character in key):
        raise SettingsError(f"{named_by}: what stands there is no API key or token")
    return key
