"""Bearer tokens: which hold, and every way in which one does not, at a real gateway."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from invoker.errors import SettingsError, UnauthorizedError
from invoker.gateway.access.jwt import read_jwks
from invoker.gateway.access.scopes import Action, Caller
from invoker.gateway.settings import load_gateway_settings
from tests.gateway.access_world import AUDIENCE, ISSUER, Issuer, bearer, guarded_gateway, jwks
from tests.gateway.stack import Stack, session

ONE, RSA, ED, STRANGER = Issuer(), Issuer.rsa(), Issuer.ed25519(), Issuer("stranger")


def checked(token: str, *issuers: Issuer) -> Caller:
    return read_jwks(jwks(*(issuers or (ONE, RSA, ED))), ISSUER, AUDIENCE).caller(token)


@pytest.mark.parametrize("issuer", [ONE, RSA, ED], ids=lambda issuer: issuer.algorithm)
def test_a_token_of_each_kind_of_key_holds(issuer: Issuer) -> None:
    caller = checked(issuer.token(scope="invoker:read profile"))
    assert (caller.name, caller.kind, caller.label) == ("ann", "jwt", "jwt:ann")
    assert caller.may(Action.READ, topic="any", function="any")
    assert not caller.may(Action.PUBLISH)


def test_the_claim_says_what_a_token_may() -> None:
    claim = [{"actions": ["publish"], "topics": ["orders.>"]}, {"actions": ["operate"], "functions": ["pack-*"]}]
    caller = checked(ONE.token(invoker=claim))
    assert caller.may(Action.PUBLISH, topic="orders.a")
    assert not caller.may(Action.PUBLISH, topic="invoices.a")
    assert caller.may(Action.READ, function="pack-small")
    assert not caller.may(Action.READ, function="convert")
    assert not checked(ONE.token()).grants, "who is known may do nothing by that alone"
    assert not checked(ONE.token(scope="read publish admin invoker:root")).grants, "those are words of others"


def forged(head: dict[str, Any], claims: dict[str, Any], secret: bytes | None) -> str:
    """A token made by hand, signed with HMAC, or not at all."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    text = f"{part(json.dumps(head).encode())}.{part(json.dumps(claims).encode())}"
    signature = b"" if secret is None else hmac.digest(secret, text.encode(), hashlib.sha256)
    return f"{text}.{part(signature)}"


def public_pem(issuer: Issuer) -> bytes:
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(issuer.key.public_key().public_bytes(*form))


def refused() -> dict[str, str]:
    """Tokens as of now: of an old one nobody would look at anything but its end."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "nbf": now - 60, "exp": now + 600, "scope": "invoker:admin"}
    return {
        "no algorithm": forged({"alg": "none", "kid": "one"}, claims, None),
        "no algorithm, in capitals": forged({"alg": "NONE", "kid": "one"}, claims, None),
        "no algorithm, with the signature of another": forged({"alg": "none", "kid": "one"}, claims, b"x"),
        "the public key as a password": forged({"alg": "HS256", "kid": "rsa"}, claims, public_pem(RSA)),
        "the JWK as a password": forged({"alg": "HS256", "kid": "one"}, claims, json.dumps(ONE.jwk()).encode()),
        "another's algorithm": forged({"alg": "RS256", "kid": "one"}, claims, b"x"),
        "another's key under a known kid": Issuer("one").token(scope="invoker:admin"),
        "an unknown kid": STRANGER.token(scope="invoker:admin"),
        "no kid": jwt.encode(claims, ONE.key, "ES256"),
        "a kid that is no text": jwt.encode(claims, ONE.key, "ES256", headers={"kid": "../../etc/passwd"}),
        "a key of its own": STRANGER.token(head={"jwk": STRANGER.jwk()}, scope="invoker:admin"),
        "expired": ONE.token(exp=now - 120),
        "not valid yet": ONE.token(nbf=now + 300),
        "another audience": ONE.token(aud="somebody-else"),
        "another issuer": ONE.token(iss="https://evil.example.org"),
        "without an end": ONE.token(without=("exp",)),
        "without a beginning": ONE.token(without=("nbf",)),
        "without an issuer": ONE.token(without=("iss",)),
        "without an audience": ONE.token(without=("aud",)),
        "without a subject": ONE.token(without=("sub",)),
        "an end that is no number": ONE.token(exp="never"),
        "a subject with a line break": ONE.token(sub="ann\nadmin"),
        "a claim that is none": ONE.token(invoker="admin"),
        "a claim with an unknown action": ONE.token(invoker=[{"actions": ["root"]}]),
        "a claim with a bad pattern": ONE.token(invoker=[{"actions": ["read"], "topics": ["a..b"]}]),
        "cut": ONE.token()[:-10],
        "with more behind": ONE.token() + ".x",
        "two dots": "..",
        "deep": f"{base64.urlsafe_b64encode(b'[' * 5000).decode()}.e30.x",
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[aiohttp.ClientSession]:
    file = tmp_path_factory.mktemp("jwks") / "jwks.json"
    file.write_bytes(jwks(ONE, RSA, ED))
    given = {"gateway_jwks": file, "gateway_jwt_issuer": ISSUER, "gateway_jwt_audience": AUDIENCE}
    async with guarded_gateway(stack.server.url, **given) as running, session(running.url) as http:
        yield http


@pytest.mark.parametrize("what", list(refused()))
async def test_a_token_that_does_not_hold_is_nobodys(guarded: aiohttp.ClientSession, what: str) -> None:
    token = refused()[what]
    async with guarded.post("/v1/topics/echo.a", data=b"x", headers=bearer(token)) as answer:
        document = await answer.json()
    assert (answer.status, document["code"]) == (401, "unauthorized"), document
    assert token not in json.dumps(document)


async def test_a_token_that_holds_does_what_it_says(guarded: aiohttp.ClientSession) -> None:
    token = RSA.token(invoker=[{"actions": ["publish"], "topics": ["echo.>"]}])
    for topic, status in (("echo.a", 202), ("mirror.a", 403)):
        async with guarded.post(f"/v1/topics/{topic}", data=b"x", headers=bearer(token)) as answer:
            assert answer.status == status
    clocks_apart = ONE.token(exp=int(time.time()) - 5, scope="invoker:publish")
    async with guarded.post("/v1/topics/echo.a", data=b"x", headers=bearer(clocks_apart)) as answer:
        assert answer.status == 202
    async with guarded.post("/v1/topics/echo.a", data=b"x", headers={"X-Api-Key": token}) as answer:
        assert answer.status == 401


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no JWKS"),
        (b"[]", "no JWKS"),
        (b'{"keys": {}}', "no JWKS"),
        (b'{"keys": []}', "no key for signatures"),
        (json.dumps({"keys": [ONE.jwk(use="enc")]}).encode(), "no key for signatures"),
        (json.dumps({"keys": [ONE.jwk(), ONE.jwk()]}).encode(), "kid"),
        (json.dumps({"keys": [{k: v for k, v in ONE.jwk().items() if k != "kid"}]}).encode(), "kid"),
        (json.dumps({"keys": [ONE.jwk(private=True)]}).encode(), "private"),
        (json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}).encode(), "shared secret"),
        (json.dumps({"keys": [ONE.jwk(alg="HS256")]}).encode(), "does not fit"),
        (json.dumps({"keys": [ONE.jwk(x="AAAA")]}).encode(), "cannot be used"),
        (json.dumps({"keys": [Issuer.rsa(bits=1024).jwk()]}).encode(), "2048"),
        (jwks(Issuer("k", "ES256", ec.generate_private_key(ec.SECP256K1()))), "RSA, EC"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_says_why(content: bytes, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        read_jwks(content, ISSUER, AUDIENCE)


def test_a_key_that_names_its_algorithm_is_used_with_no_other() -> None:
    keys = read_jwks(json.dumps({"keys": [RSA.jwk(alg="PS256")]}).encode(), ISSUER, AUDIENCE)
    with pytest.raises(UnauthorizedError, match="algorithm"):
        keys.caller(RSA.token())


def test_issuer_and_audience_are_needed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="INVOKER_GATEWAY_JWT_AUDIENCE"):
        load_gateway_settings({}, gateway_jwks=tmp_path / "x", gateway_jwt_issuer=ISSUER)


def test_without_the_library_it_is_said_how_to_get_it() -> None:
    program = (
        "import sys; sys.modules['jwt'] = None\n"
        "from invoker.gateway.access.jwt import read_jwks\n"
        "from invoker.errors import SettingsError\n"
        "try: read_jwks(b'{}', 'i', 'a')\n"
        "except SettingsError as error: print(error.message, '|', error.hint)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "checking tokens needs PyJWT | pip install '.[jwt]' in the checkout of Invoker"
