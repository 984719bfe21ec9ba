"""JWT bearer tokens, checked with the public keys of a local JWKS file. PyJWT is spoken here only.

What a token may do stands in its claim `invoker`, a list as the scopes of a key (`[{"actions": ["read"], "topics":
["orders.>"]}]`), or in the words of its claim `scope`: `invoker:read`, `invoker:publish`, and so on, for everything.
Which algorithm a token is checked with is the key's affair, never the token's: one that names another is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from invoker.errors import SettingsError, UnauthorizedError
from invoker.gateway.access.keys import Scope
from invoker.gateway.access.scopes import Action, Caller, Grant

CLAIM, WORD_PREFIX = "invoker", "invoker:"
LEEWAY_SECONDS = 30
"""How far the clocks of issuer and gateway may be apart."""
MAX_TOKEN_CHARACTERS = 16 * 1024
_RSA_BITS = 2048
_ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
    "Ed448": ("EdDSA",),
}
"""Asymmetric ones only: with HS256 a public key would be a password that everybody has."""
_NAME = re.compile(r"[\x21-\x7e]{1,200}")
_SCOPES = TypeAdapter(tuple[Scope, ...])


@dataclass(frozen=True, slots=True)
class JwtKeys:
    """The public keys of one version of the file by their `kid`, each with the algorithms it may be used with."""

    keys: Mapping[str, tuple[Any, tuple[str, ...]]]
    issuer: str
    audience: str

    def caller(self, token: str) -> Caller:
        """Whose token this is. Raises `UnauthorizedError`, saying why it does not hold, never what it is."""
        import jwt

        if len(token) > MAX_TOKEN_CHARACTERS:
            raise UnauthorizedError("the token is too long", fault="malformed")
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key, algorithms = self.keys.get(kid, (None, ())) if isinstance(kid, str) else (None, ())
            if key is None:
                raise UnauthorizedError("the token is signed with a key that is not known here", fault="unknown")
            claims = jwt.decode(
                token, key, list(algorithms), issuer=self.issuer, audience=self.audience, leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "nbf", "iss", "aud", "sub"], "strict_aud": False},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            fault = "expired" if isinstance(error, jwt.ExpiredSignatureError) else "invalid"
            raise UnauthorizedError(f"the token does not hold: {_reason(error)}", fault=fault) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise UnauthorizedError("what was shown is no token", fault="malformed") from error
        return _caller(claims)


def read_jwks(data: bytes, issuer: str, audience: str) -> JwtKeys:
    """The keys in a JWKS file's bytes. Raises `SettingsError` naming the key that cannot be used."""
    jwt = _library()
    try:
        listed = json.loads(data)["keys"]
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise SettingsError('the file is no JWKS: JSON with a list "keys" is wanted') from error
    found: dict[str, tuple[Any, tuple[str, ...]]] = {}
    for position, one in enumerate(listed):
        if one.get("use", "sig") != "sig":
            continue
        kid, where = one.get("kid"), f"keys.{position}"
        if not isinstance(kid, str) or not kid or kid in found:
            raise SettingsError(f'{where}: a "kid" of its own is needed')
        algorithms = _algorithms(one, where)
        try:
            # The bare key: the library would check every token with the one algorithm that it is made with.
            key = jwt.PyJWK(one, algorithm=algorithms[0]).key
        except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
            raise SettingsError(f"{where}: the key cannot be used") from error
        if one["kty"] == "RSA" and key.key_size < _RSA_BITS:
            raise SettingsError(f"{where}: RSA keys need {_RSA_BITS} bits at least")
        found[kid] = key, algorithms
    if not found:
        raise SettingsError("there is no key for signatures in the file")
    return JwtKeys(found, issuer, audience)


def _algorithms(key: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """What the key may be used with: all that its kind allows, or the one it names itself."""
    allowed = _ALGORITHMS.get(str(key.get("kty") if key.get("kty") == "RSA" else key.get("crv")))
    if allowed is None:
        raise SettingsError(f"{where}: only RSA, EC and OKP keys are taken: a shared secret is no public key")
    if "d" in key:
        raise SettingsError(f"{where}: this is a private key; the file is for public ones, and this one is known now")
    own = key.get("alg")
    if own is None:
        return allowed
    if own not in allowed:
        raise SettingsError(f"{where}: the algorithm {str(own)[:40]!a} does not fit the key")
    return (own,)


def _library() -> Any:
    try:
        import jwt
    except ImportError as error:
        raise SettingsError(
            "checking tokens needs PyJWT", hint="pip install '.[jwt]' in the checkout of Invoker"
        ) from error
    return jwt


def _caller(claims: Mapping[str, Any]) -> Caller:
    name = claims["sub"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UnauthorizedError('the token does not hold: its "sub" must be 1 to 200 printable characters')
    return Caller(name, "jwt", (*_grants_of_claim(claims.get(CLAIM)), *_grants_of_words(claims.get("scope"))))


def _grants_of_claim(claim: object) -> tuple[Grant, ...]:
    if claim is None:
        return ()
    try:
        return tuple(scope.grant() for scope in _SCOPES.validate_json(json.dumps(claim)))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise UnauthorizedError(f'the token does not hold: its "{CLAIM}" cannot be read at {where or "/"}') from error


def _grants_of_words(words: object) -> tuple[Grant, ...]:
    if not isinstance(words, str):
        return ()
    named = {word.removeprefix(WORD_PREFIX) for word in words.split() if word.startswith(WORD_PREFIX)}
    actions = frozenset(action for action in Action if action in named)
    return (Grant(actions),) if actions else ()


def _reason(error: Exception) -> str:
    """Why, in our words: the library's own may repeat what was shown."""
    import jwt

    reasons: tuple[tuple[type[Exception], str], ...] = (
        (jwt.ExpiredSignatureError, "it has expired"),
        (jwt.ImmatureSignatureError, "it is not valid yet"),
        (jwt.InvalidAudienceError, "it is for another audience"),
        (jwt.InvalidIssuerError, "it is from another issuer"),
        (jwt.MissingRequiredClaimError, "exp, nbf, iss, aud and sub are needed"),
        (jwt.InvalidAlgorithmError, "it is signed with an algorithm that is not taken"),
        (jwt.InvalidSignatureError, "its signature is not right"),
    )
    return next((words for kind, words in reasons if isinstance(error, kind)), "it cannot be read")
