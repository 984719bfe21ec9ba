"""Ports for servers that are started later, or come back to the address that they had."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

_NEVER_GIVEN = range(20_000, 30_000)
"""Below those that the system gives to whoever asks for any port (32768 and above): on a busy machine one of these has
another owner a second later, a mere connection it may be."""


def lasting_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Ports that nobody listens on at this address, all different, and that the system gives to nobody while their
    servers are away."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_NEVER_GIVEN, len(_NEVER_GIVEN)):
        with suppress(OSError), socket.create_server((address, port)):
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"there are no {count} free ports at {address}")


def lasting_port(address: str = "127.0.0.1") -> int:
    """One of them."""
    return lasting_ports(1, address)[0]
