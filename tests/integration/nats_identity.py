"""Identities for real nats-servers: nkeys, decentralised users (operator, account, user JWTs) and TLS certificates."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import nkeys


def new_key(prefix: int) -> tuple[bytes, str]:
    """Seed and public key of a new nkey."""
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    return seed, nkeys.from_seed(bytearray(seed)).public_key.decode()


def user_key() -> tuple[bytes, str]:
    return new_key(nkeys.PREFIX_BYTE_USER)


@dataclass(frozen=True)
class Decentralised:
    """A server's configuration that knows one account, and a credentials file of a user of it."""

    config: str
    creds: str


def decentralised() -> Decentralised:
    operator_seed, operator = new_key(nkeys.PREFIX_BYTE_OPERATOR)
    account_seed, account = new_key(nkeys.PREFIX_BYTE_ACCOUNT)
    user_seed, user = user_key()
    unlimited = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1}
    storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1, "wildcards": True}
    operator_jwt = _jwt(operator_seed, operator, operator, "operator", {})
    account_jwt = _jwt(operator_seed, operator, account, "account", {"limits": unlimited | storage})
    user_jwt = _jwt(account_seed, account, user, "user", {"subs": -1, "data": -1, "payload": -1})
    config = f"operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {account}: {account_jwt} }}"
    creds = (
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user_seed.decode()}\n------END USER NKEY SEED------\n"
    )
    return Decentralised(config, creds)


def _jwt(seed: bytes, issuer: str, subject: str, kind: str, nats: dict[str, object]) -> str:
    claims = {"iat": int(time.time()), "iss": issuer, "name": kind, "sub": subject}
    claims["nats"] = nats | {"type": kind, "version": 2}
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    text = f"{_part(json.dumps(header).encode())}.{_part(json.dumps(claims).encode())}"
    return f"{text}.{_part(nkeys.from_seed(bytearray(seed)).sign(text.encode()))}"


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@dataclass(frozen=True)
class Certificates:
    """A certificate authority of one's own, and what it signed for 127.0.0.1 and for a client."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


def certificates(folder: Path) -> Certificates:
    ca, ca_key = folder / "ca.pem", folder / "ca-key.pem"
    _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=test authority", "-addext", "basicConstraints=critical,CA:TRUE",
             "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", ca_key, "-out", ca)  # fmt: skip
    server = _signed(folder, "server", ca, ca_key, "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    client = _signed(folder, "client", ca, ca_key, "extendedKeyUsage=clientAuth\n")
    return Certificates(ca, *server, *client)


def expired(signed: Certificates) -> Path:
    """The server's certificate once more, its validity over since yesterday."""
    folder, cert = signed.ca.parent, signed.ca.parent / "expired.pem"
    _openssl("x509", "-req", "-in", folder / "server.csr", "-CA", signed.ca, "-CAkey", folder / "ca-key.pem",
             "-CAcreateserial", "-days", "-1", "-extfile", folder / "server.ext", "-out", cert)  # fmt: skip
    return cert


def _signed(folder: Path, name: str, ca: Path, ca_key: Path, extensions: str) -> tuple[Path, Path]:
    cert, key, request, file = (folder / f"{name}{end}" for end in (".pem", "-key.pem", ".csr", ".ext"))
    file.write_text(f"{extensions}authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n")
    _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
             "-keyout", key, "-out", request)  # fmt: skip
    _openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2",
             "-extfile", file, "-out", cert)  # fmt: skip
    return cert, key


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
