"""What the tests of access share: keys, token issuers, a small gateway of their own, and bytes on a raw socket."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from invoker.gateway.access import keys
from invoker.gateway.app import RunningGateway
from tests.gateway.stack import running_gateway

ISSUER, AUDIENCE = "https://login.example.org", "invoker"


def add_key(file: Path, name: str, *scopes: str, **more: Any) -> str:
    """A key in the file with scopes as they are typed (`publish orders.>`); returns its text."""
    made = keys.new_key(name, tuple(map(keys.scope_of, scopes)), now=datetime.now(UTC), **more)
    keys.store(file, keys.with_key(keys.load(file, begin=True), made.stored))
    return made.text


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


@dataclass
class Issuer:
    """Somebody who signs tokens. `kid` and `alg` stand in the head of what he signs."""

    kid: str = "one"
    algorithm: str = "ES256"
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def rsa(cls, kid: str = "rsa", bits: int = 2048) -> Issuer:
        return cls(kid, "RS256", rsa.generate_private_key(65537, bits))

    @classmethod
    def ed25519(cls, kid: str = "ed") -> Issuer:
        return cls(kid, "EdDSA", ed25519.Ed25519PrivateKey.generate())

    def jwk(self, *, private: bool = False, **more: Any) -> dict[str, Any]:
        kinds = {"ES256": jwt.algorithms.ECAlgorithm, "RS256": jwt.algorithms.RSAAlgorithm}
        kind: Any = kinds.get(self.algorithm, jwt.algorithms.OKPAlgorithm)
        return dict(kind.to_jwk(self.key if private else self.key.public_key(), as_dict=True)) | {
            "kid": self.kid,
            **more,
        }

    def token(self, *, without: tuple[str, ...] = (), head: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token that holds for a minute, with these claims besides (or instead), and without those."""
        now = int(time.time())
        whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "nbf": now - 60, "exp": now + 60} | claims
        left = {name: value for name, value in whole.items() if name not in without}
        return jwt.encode(left, self.key, self.algorithm, headers={"kid": self.kid} | (head or {}))


def jwks(*issuers: Issuer) -> bytes:
    return json.dumps({"keys": [one.jwk() for one in issuers]}).encode()


@asynccontextmanager
async def guarded_gateway(nats_url: str, **settings: Any) -> AsyncIterator[RunningGateway]:
    """A gateway at which nobody may do anything without a key or token."""
    async with running_gateway(nats_url, **({"gateway_anonymous": ()} | settings)) as running:
        yield running


@dataclass
class Wire:
    """A connection on which a test says exactly what it wants."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, within: float = 60) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers (lower case), body."""
        async with asyncio.timeout(within):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in head[1:] if line)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
            return int(head[0].split()[1]), headers, body

    async def rest(self, within: float = 60) -> bytes:
        """All that comes until the other side closes; a reset is an end as well."""
        async with asyncio.timeout(within):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
