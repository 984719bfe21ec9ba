"""How often a key and an address may call, and which address a call comes from."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope

from invoker.gateway.access.scopes import Caller
from invoker.gateway.door import Rates
from invoker.gateway.settings import GatewaySettings


class CallLimiter:
    """Counts the calls of keys and addresses."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings

    def admit(self, caller: Caller | None, address: str) -> Rates:
        """Count one call. Raises `RateLimitedError` when it is one too many."""
        return Rates({})


def address_finder(settings: GatewaySettings) -> Callable[[Scope], str]:
    """Which address a call comes from."""

    def address_of(scope: Scope) -> str:
        client = scope.get("client")
        return str(client[0]) if client else "-"

    return address_of
