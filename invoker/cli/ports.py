"""Which port a server of `invoker dev` listens on: the usual one, the next free one, or exactly the one asked for."""

from __future__ import annotations

import socket
import sys

from invoker.errors import SettingsError

TRIED = 100
LOOPBACK = "127.0.0.1"
_reserved: dict[int, socket.socket] = {}
"""What this process has chosen, for as long as it lives: others that look for a port at this moment leave it alone."""


def choose_port(asked: int | None, usual: int, option: str, host: str = LOOPBACK) -> int:
    """The asked port when it is free, or the first free one from the usual one on; 0, for any free port, stays 0: a
    port that is found free here may be another's when the server comes to listen.

    Raises `SettingsError` naming the option when the asked port is taken or may not be used, or when the host is no
    address of this machine.
    """
    check_host(host)
    if asked is not None:
        problem = _problem(asked, host) if asked else None
        if problem is not None:
            raise SettingsError(
                f"{option}: port {asked} on {host} {problem}",
                hint=f"leave {option} out to take the next free port",
            )
        return asked
    for port in range(usual, usual + TRIED):
        if _problem(port, host) is None and _reserve(port):
            return port
    raise SettingsError(f"{option}: no free port from {usual} to {usual + TRIED - 1} on {host}")


def check_host(host: str) -> None:
    """Raises `SettingsError` when nothing can listen there: the host is no address of this machine."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise SettingsError(
                f"--http-host: {host} is no address of this machine ({error.strerror})",
                hint="`ip -brief address` lists those it has",
            ) from error


def _problem(asked: int, host: str) -> str | None:
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        # As servers bind: connections of an earlier server that linger do not count, a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, asked))
        except PermissionError:
            return "may not be used by this user"
        except OSError:
            return "is taken"
    return None


def _reserve(port: int) -> bool:
    """Whether the port is this process' from here on, among those who choose as this does: between choosing a port and
    listening on it there is time. A name in the abstract namespace goes with its process, however that ends."""
    if port in _reserved or not sys.platform.startswith("linux"):
        return True
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        mark.bind(f"\0invoker-port-{port}")
    except OSError:
        mark.close()
        return False
    _reserved[port] = mark
    return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
