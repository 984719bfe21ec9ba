"""How often a key and an address may call, and which address a call comes from.

Token buckets: each fills at its rate and holds ten seconds' worth. A full bucket is as good as none, so the number of
them is bounded by forgetting the one that was used longest ago.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from starlette.types import Scope

from invoker.errors import RateLimitedError
from invoker.gateway.access.scopes import Caller
from invoker.gateway.door import Rates
from invoker.gateway.settings import GatewaySettings

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

BURST_SECONDS = 10.0
MAX_BUCKETS = 20_000
"""Whoever comes from more addresses than this within ten seconds begins again with a full bucket."""
MAX_FORWARDED = 32
"""Entries of X-Forwarded-For that are looked at, from the nearest proxy on."""
IPV6_PREFIX = 64
"""One customer has at least so many IPv6 addresses: they count as one."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


@dataclass(frozen=True, slots=True)
class Level:
    """What taking from a bucket said: whether there was one left, how many now are, and after which seconds there is
    one again and all are."""

    taken: bool
    quota: int
    left: int
    next_seconds: float
    full_seconds: float


class Buckets:
    """Token buckets by name; no more than `limit` of them are kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, limit: int = MAX_BUCKETS) -> None:
        self._clock = clock
        self._limit = limit
        self._kept: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, name: str, per_second: float, owed: int = 0) -> Level:
        """Take one token, if there is one; or so many that are `owed` in any case, and fill up before there is one."""
        now, room = self._clock(), max(1.0, per_second * BURST_SECONDS)
        bucket = self._kept.setdefault(name, _Bucket(room, now))
        self._kept.move_to_end(name)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        bucket.tokens = min(room, bucket.tokens + (now - bucket.at) * per_second)
        bucket.at = now
        taken = owed > 0 or bucket.tokens >= 1.0
        if taken:
            bucket.tokens -= owed or 1
        return Level(
            taken,
            int(room),
            max(0, int(bucket.tokens)),
            max(0.0, (1.0 - bucket.tokens) / per_second),
            (room - bucket.tokens) / per_second,
        )


class CallLimiter:
    """Counts the calls of addresses, and of keys and tokens."""

    def __init__(self, settings: GatewaySettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_address = settings.gateway_address_calls_per_second
        self._per_key = settings.gateway_key_calls_per_second
        self._addresses = Buckets(clock)
        self._callers = Buckets(clock)

    def admit_address(self, address: str, owed: int = 0) -> Rates:
        """Count one call from there, before anybody looks at what it shows: so guessing keys is counted, too. Or as
        many as are `owed` for one that was admitted."""
        if not self._per_address:
            return Rates({})
        return _rates("address", self._addresses.take(bucket_of(address), self._per_address, owed))

    def admit_caller(self, caller: Caller | None, owed: int = 0) -> Rates:
        """The same of a key or token; nobody's calls are only counted by their address."""
        rate = (caller.calls_per_second or self._per_key) if caller is not None else 0.0
        if caller is None or not rate or caller.kind == "anonymous":
            return Rates({})
        return _rates("key", self._callers.take(caller.label, rate, owed))


def _rates(policy: str, level: Level) -> Rates:
    """The headers of the IETF draft, as structured fields, and the refusal when nothing was left."""
    left = math.ceil(level.full_seconds)
    headers = {
        "RateLimit-Policy": f'"{policy}";q={level.quota};w={round(BURST_SECONDS)}',
        "RateLimit": f'"{policy}";r={level.left};t={left}',
    }
    if level.taken:
        return Rates(headers)
    seconds = max(1, math.ceil(level.next_seconds))
    refusal = RateLimitedError(
        f"too many calls of this {policy}; the next one is welcome in {seconds} s",
        policy=policy,
        retry_after_seconds=seconds,
    )
    return Rates(headers, refusal)


def bucket_of(address: str) -> str:
    """The address as it is counted: of IPv6 its network, since the rest is its owner's to choose."""
    parsed = parsed_address(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, IPV6_PREFIX), strict=False))
    return address


def address_finder(settings: GatewaySettings) -> Callable[[Scope], str]:
    """Which address a call comes from: the peer's, or what proxies that are trusted say about whom they speak for."""
    trusted = tuple(ip_network(one, strict=False) for one in settings.gateway_trusted_proxies)

    def address_of(scope: Scope) -> str:
        client = scope.get("client")
        peer = str(client[0]) if client else "-"
        if not trusted:
            return peer
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return origin_address(peer, b",".join(forwarded).decode("latin-1"), trusted)

    return address_of


def peer_counter(settings: GatewaySettings) -> Callable[[str], str | None]:
    """As what the connections of an address are counted; None for proxies that are trusted: theirs are of many."""
    trusted = tuple(ip_network(one, strict=False) for one in settings.gateway_trusted_proxies)
    return lambda peer: None if _is_in(peer, trusted) else bucket_of(peer)


def origin_address(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """The first address, from the gateway outwards, that is no trusted proxy's. Pure.

    Each proxy writes down on the right whom it got the call from; what stands left of an untrusted one's entry was
    written by the caller himself and may be anything.
    """
    found = peer
    entries = [entry.strip() for entry in forwarded.split(",") if entry.strip()]
    for entry in reversed(entries[-MAX_FORWARDED:]):
        if not _is_in(found, trusted):
            break
        address = parsed_address(entry)
        if address is None:
            break
        found = str(address)
    return found


def parsed_address(text: str) -> Address | None:
    """The IP address in a text, which may have a port (`192.0.2.1:80`, `[2001:db8::1]:80`); None for anything else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_in(text: str, networks: Sequence[Network]) -> bool:
    address = parsed_address(text)
    return address is not None and any(address.version == one.version and address in one for one in networks)
