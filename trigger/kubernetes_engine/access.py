"""The open connection to an API server, kept usable while tokens rotate and certificates change.

Credentials are looked at again when their files changed, before they expire, and at once when the API server does not
accept them or its certificate is not accepted. What is new about a token goes with the next call; anything else makes
a new session, and the old one is closed when its last call has ended.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from invoker.errors import InvokerError
from trigger.kubernetes_engine.credentials import ClusterAccess, Credentials, read_credentials

__all__ = ["Channel", "ClusterAccess", "OpenAccess"]

_EARLY = timedelta(minutes=5)
"""How long before its end an exec plugin's token is replaced, where it lives long enough."""
_RENEWAL_PAUSE_SECONDS = 1.0
"""After a reading that found nothing new, the next refused call reads again only when a file changed: an exec plugin
is a process each time."""
_KEEPALIVE_SECONDS = 60.0


@dataclass(slots=True)
class Channel:
    """The sessions of one set of certificates: `calls` of limited number, `streams` for watches and logs, so that
    followers of logs never take the calls' connections."""

    calls: aiohttp.ClientSession
    streams: aiohttp.ClientSession
    server: str
    options: dict[str, Any]
    """What every request is given besides its own: proxy, server name."""
    users: int = 0
    retired: bool = False

    async def close(self) -> None:
        await self.calls.close()
        await self.streams.close()


class OpenAccess:
    """A connection to one API server; an async context manager.

    Entering raises `SettingsError` or `EngineUnavailableError` when the credentials cannot be read; whether the API
    server answers is found out by the first call. Trouble with renewing later is not raised: the old credentials stay
    in use, and the API server says what it thinks of them.
    """

    def __init__(self, access: ClusterAccess, user_agent: str) -> None:
        self._access = access
        # Not compressed: that costs the API server more than it saves in the network of a cluster.
        self._headers = {"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "identity"}
        self._renewing = asyncio.Lock()
        self._generation = 0
        self._stamps: tuple[tuple[int, int, int], ...] = ()
        self._read_at = self._look_at = self._vain_until = 0.0
        self._credentials: Credentials
        self._channel: Channel

    async def __aenter__(self) -> Self:
        self._take(await read_credentials(self._access))
        self._channel = self._new_channel()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    @property
    def namespace(self) -> str:
        return self._credentials.namespace

    @property
    def server(self) -> str:
        """The API server's address."""
        return self._credentials.server

    @property
    def generation(self) -> int:
        """Grows with every change of the credentials: tells `renew` which ones a call had used."""
        return self._generation

    @property
    def authorization(self) -> Mapping[str, str]:
        """The header of the present token; empty where a certificate says who we are."""
        token = self._credentials.authorization
        return {"Authorization": token} if token else {}

    async def enter(self) -> Channel:
        """The channel for one call, which must `leave` it; looks at the credentials' files first when it is time."""
        if time.monotonic() >= self._look_at:
            await self._look()
        self._channel.users += 1
        return self._channel

    async def leave(self, channel: Channel) -> None:
        channel.users -= 1
        if channel.retired and not channel.users:
            await channel.close()

    async def renew(self, generation: int) -> bool:
        """Read the credentials again because those of `generation` were refused; True when there are other ones now.

        Many calls may ask at once: one reads, the others get its answer.
        """
        async with self._renewing:
            if generation != self._generation:
                return True
            if time.monotonic() < self._vain_until and _stamps(self._credentials.files) == self._stamps:
                return False
            renewed = await self._read_again()
            self._vain_until = 0.0 if renewed else time.monotonic() + _RENEWAL_PAUSE_SECONDS
            return renewed

    async def _read_again(self) -> bool:
        try:
            return await self._replace(await read_credentials(self._access))
        except InvokerError:
            return False  # half-written files, a plugin that failed: what we have may still be good

    async def _look(self) -> None:
        self._look_at = time.monotonic() + self._access.look_again_seconds
        if _stamps(self._credentials.files) != self._stamps or _ends_soon(self._credentials, self._read_age()):
            await self.renew(self._generation)

    def _read_age(self) -> float:
        return time.monotonic() - self._read_at

    async def _replace(self, new: Credentials) -> bool:
        old, channel = self._credentials, self._channel
        self._take(new)
        if new.identity != old.identity:
            self._channel = self._new_channel()
            channel.retired = True
            if not channel.users:
                await channel.close()
        changed = new.identity != old.identity or new.authorization != old.authorization
        self._generation += changed
        return changed

    def _take(self, credentials: Credentials) -> None:
        # The stamps come after the reading, so a file that changes in between is seen as unchanged once; the API
        # server's refusal then makes us read again.
        self._credentials = credentials
        self._stamps = _stamps(credentials.files)
        self._read_at = time.monotonic()
        self._look_at = self._read_at + self._access.look_again_seconds

    def _new_channel(self) -> Channel:
        credentials = self._credentials
        options: dict[str, Any] = {"allow_redirects": False}
        if credentials.server_hostname:
            options["server_hostname"] = credentials.server_hostname
        if proxy := credentials.proxy or _surrounding_proxy(credentials.server):
            options |= {"proxy": proxy, "proxy_headers": credentials.proxy_headers}
        return Channel(
            self._session(self._access.connections), self._session(0), credentials.server, options
        )  # fmt: skip

    def _session(self, limit: int) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=limit, ssl=self._credentials.tls, keepalive_timeout=_KEEPALIVE_SECONDS)
        return aiohttp.ClientSession(connector=connector, headers=self._headers, cookie_jar=aiohttp.DummyCookieJar())


def _ends_soon(credentials: Credentials, age_seconds: float) -> bool:
    """Whether an exec plugin's credentials end within five minutes; short-lived ones are used for half of their time,
    which is known only from how long they were held."""
    if credentials.expires_at is None:
        return False
    left = credentials.expires_at - datetime.now(UTC)
    return left < min(_EARLY, timedelta(seconds=age_seconds))


def _stamps(files: tuple[Path, ...]) -> tuple[tuple[int, int, int], ...]:
    return tuple(_stamp(one) for one in files)


def _stamp(file: Path) -> tuple[int, int, int]:
    """Changes whenever the file is written or replaced, also through the links of a mounted Secret."""
    try:
        found = file.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _surrounding_proxy(server: str) -> str | None:
    """The proxy that HTTPS_PROXY and NO_PROXY name for the API server, as every client of Kubernetes takes it. Found
    once per session: aiohttp's own `trust_env` looks at the environment and at ~/.netrc for every request."""
    parts = urlsplit(server)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)
