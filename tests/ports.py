"""Ports for servers that are started later, or come back to the address that they had."""

from __future__ import annotations

import secrets
from contextlib import closing
from socket import socket

_LOWEST, _COUNT = 20_000, 10_000
"""Below those that the system gives to whoever asks for any port (32768 and above): one of these may be somebody else's
as soon as nobody listens on it, and other tests start servers all the time."""


def lasting_port() -> int:
    """A port of the loopback that nobody listens on, and that the system gives to nobody while its server is away."""
    while True:
        port = _LOWEST + secrets.randbelow(_COUNT)
        with closing(socket()) as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
