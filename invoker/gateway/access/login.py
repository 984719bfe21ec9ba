"""Who is calling: an API key, a JWT, or nobody."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.datastructures import Headers

from invoker.errors import UnauthorizedError
from invoker.gateway.access.jwt import JwtKeys, read_jwks
from invoker.gateway.access.keys import PREFIX, KeyRing, read_ring
from invoker.gateway.access.scopes import Caller, anonymous
from invoker.gateway.access.watched_file import WatchedFile
from invoker.gateway.settings import GatewaySettings

KEYS_SETTING, JWKS_SETTING = "INVOKER_GATEWAY_KEYS", "INVOKER_GATEWAY_JWKS"


class CallerLogin:
    """Finds the caller of each call, as the settings say. Raises `SettingsError` when a file of theirs is of no use."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._anonymous = anonymous(settings.gateway_anonymous)
        self._keys: WatchedFile[KeyRing] | None = None
        self._jwks: WatchedFile[JwtKeys] | None = None
        if settings.gateway_keys is not None:
            self._keys = WatchedFile(settings.gateway_keys, KEYS_SETTING, read_ring)
        if settings.gateway_jwks is not None:
            issuer, audience = settings.gateway_jwt_issuer or "", settings.gateway_jwt_audience or ""
            self._jwks = WatchedFile(
                settings.gateway_jwks, JWKS_SETTING, lambda data: read_jwks(data, issuer, audience)
            )

    async def __call__(self, headers: Headers) -> Caller | None:
        """The caller, None when nothing was shown. Raises `UnauthorizedError` when what was shown is not valid.

        What is shown and not valid is never taken for nothing: a caller whose key has expired must hear it, even where
        calls without a key are allowed.
        """
        shown = credential(headers)
        if shown is None:
            return self._anonymous
        if shown.startswith(PREFIX):
            if self._keys is not None:
                return self._keys.present().caller(shown, datetime.now(UTC))
            raise UnauthorizedError("this gateway has no API keys", fault="unknown")
        if self._jwks is not None:
            return self._jwks.present().caller(shown)
        raise UnauthorizedError("what was shown is no API key", fault="malformed", hint="keys look like inv_ID_SECRET")


def credential(headers: Headers) -> str | None:
    """The one key or token that a call shows, None for none. Raises `UnauthorizedError` for two, or another scheme."""
    authorization, keys = headers.getlist("authorization"), headers.getlist("x-api-key")
    if len(authorization) + len(keys) > 1:
        raise UnauthorizedError("the call shows more than one key or token; show one", fault="malformed")
    if keys:
        if not keys[0].startswith(PREFIX):
            raise UnauthorizedError(
                "X-Api-Key is for API keys", fault="malformed", hint="tokens go into Authorization: Bearer TOKEN"
            )
        return keys[0]
    if not authorization:
        return None
    scheme, _, value = authorization[0].partition(" ")
    if scheme.lower() != "bearer" or not value.strip():
        raise UnauthorizedError("the header Authorization must be: Bearer KEY", fault="malformed")
    return value.strip()
