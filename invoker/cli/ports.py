"""Which port a server of `invoker dev` listens on: the usual one, the next free one, or exactly the one asked for."""

from __future__ import annotations

import socket

from invoker.errors import SettingsError

TRIED = 100


def choose_port(asked: int | None, usual: int, option: str) -> int:
    """The asked port when it is free, or the first free one from the usual one on; 0 asked for means any free port.

    Raises `SettingsError` naming the option when the asked port is taken or may not be used.
    """
    if asked is not None:
        problem = _problem(asked)
        if problem is not None:
            raise SettingsError(
                f"{option}: port {asked} on 127.0.0.1 {problem}",
                hint=f"leave {option} out to take the next free port",
            )
        return asked if asked else _any_port()
    for port in range(usual, usual + TRIED):
        if _problem(port) is None:
            return port
    raise SettingsError(f"{option}: no free port from {usual} to {usual + TRIED - 1} on 127.0.0.1")


def _problem(port: int) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers bind: connections of an earlier server that linger do not count, a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return "may not be used by this user"
        except OSError:
            return "is taken"
    return None


def _any_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
