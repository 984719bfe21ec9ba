"""API keys: the text that a caller shows, and the file in which only its hash stands.

A key is `inv_<id>_<secret>`: ten characters that name it and 52 that nobody can guess (260 bits, so a plain sha256 is
as good as a slow one). The file is JSON:

    {"version": 1, "keys": [{"id": "…", "sha256": "…", "name": "uploader", "scopes": [{"actions": ["publish"],
     "topics": ["orders.>"], "functions": ["*"]}], "created_at": "…", "expires_at": null, "calls_per_second": null}]}
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from invoker import wire
from invoker.errors import InputRefusedError, SettingsError, TopicError, UnauthorizedError, UnknownIdError
from invoker.gateway.access.scopes import Action, Caller, Grant

PREFIX = "inv_"
ID_CHARACTERS, SECRET_CHARACTERS = 10, 52
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_KEY = re.compile(rf"inv_([a-z2-7]{{{ID_CHARACTERS}}})_([a-z2-7]{{{SECRET_CHARACTERS}}})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_FUNCTIONS = re.compile(r"[a-z0-9*-]{1,63}")


class Scope(BaseModel):
    """Some actions on the topics and functions that fit the patterns; all of them when none are named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actions: Annotated[tuple[Action, ...], Field(min_length=1)]
    topics: Annotated[tuple[str, ...], Field(min_length=1)] = (">",)
    functions: Annotated[tuple[str, ...], Field(min_length=1)] = ("*",)

    @field_validator("topics")
    @classmethod
    def _topic_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(wire.check_pattern(pattern) for pattern in value)
        except TopicError as error:
            raise ValueError(error.message) from error

    @field_validator("functions")
    @classmethod
    def _function_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not _FUNCTIONS.fullmatch(pattern):
                raise ValueError(f"{pattern[:80]!a} is no function name with *")
        return value

    def grant(self) -> Grant:
        return Grant(frozenset(self.actions), self.topics, self.functions)


class StoredKey(BaseModel):
    """One key as the file has it: never its secret. `calls_per_second` wins over the gateway's setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=f"^[a-z2-7]{{{ID_CHARACTERS}}}$")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    name: str
    scopes: tuple[Scope, ...]
    created_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    calls_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(f"{value[:80]!a} is no name: 1 to 64 letters, digits and . _ @ -")
        return value

    def caller(self) -> Caller:
        return Caller(self.name, "key", tuple(scope.grant() for scope in self.scopes), self.calls_per_second)


class KeyFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    keys: tuple[StoredKey, ...] = ()

    @field_validator("keys")
    @classmethod
    def _told_apart(cls, value: tuple[StoredKey, ...]) -> tuple[StoredKey, ...]:
        for what, given in (("id", [key.id for key in value]), ("name", [key.name for key in value])):
            twice = {one for one in given if given.count(one) > 1} if len(set(given)) < len(given) else set()
            if twice:
                raise ValueError(f"the {what} {min(twice)!r} is there twice")
        return value


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key in the moment it is made: the text to hand over, once, and what is stored of it."""

    text: str
    stored: StoredKey


class KeyRing:
    """The keys of one version of the file, found by their text."""

    def __init__(self, keys: Iterable[StoredKey]) -> None:
        self._keys = {key.id: (key, key.caller()) for key in keys}

    def caller(self, text: str, now: datetime) -> Caller:
        """Whose key this is. Raises `UnauthorizedError`: not a key, not one of ours, or expired."""
        parts = _KEY.fullmatch(text)
        if parts is None:
            raise UnauthorizedError(
                "what was shown is no API key", fault="malformed", hint="keys look like inv_ID_SECRET"
            )
        # The same work whether the id is known or not, and a comparison that does not tell how much was right.
        found = self._keys.get(parts[1])
        wanted = found[0].sha256 if found is not None else "0" * 64
        if not hmac.compare_digest(_sha256(parts[2]), wanted) or found is None:
            raise UnauthorizedError("the API key is not known (any more)", fault="unknown")
        key, caller = found
        if key.expires_at is not None and key.expires_at <= now:
            raise UnauthorizedError(f"the API key {key.name} has expired", fault="expired")
        return caller


def read_keys(data: bytes) -> KeyFile:
    """The keys in a file's bytes. Raises `SettingsError` naming the field; never repeats a hash."""
    try:
        return KeyFile.model_validate_json(data)
    except ValidationError as error:
        raise SettingsError(_first(error), hint="invoker keys makes and changes this file") from error


def read_ring(data: bytes) -> KeyRing:
    """The same, to look keys up in."""
    return KeyRing(read_keys(data).keys)


def new_key(
    name: str,
    scopes: tuple[Scope, ...],
    *,
    now: datetime,
    expires_at: datetime | None = None,
    calls_per_second: float | None = None,
    choice: Callable[[str], str] = secrets.choice,
) -> NewKey:
    """A key with a new id and secret. Raises `InputRefusedError` for a name or a rate that cannot be used."""
    identifier = "".join(choice(_ALPHABET) for _ in range(ID_CHARACTERS))
    secret = "".join(choice(_ALPHABET) for _ in range(SECRET_CHARACTERS))
    try:
        stored = StoredKey(
            id=identifier, sha256=_sha256(secret), name=name, scopes=scopes, created_at=now, expires_at=expires_at,
            calls_per_second=calls_per_second,
        )  # fmt: skip
    except ValidationError as error:
        raise InputRefusedError(_first(error)) from error
    return NewKey(f"{PREFIX}{identifier}_{secret}", stored)


def scope_of(words: str) -> Scope:
    """The scope that `ACTIONS [TOPICS [FUNCTIONS]]` says, each part with commas. Raises `InputRefusedError`."""
    parts = [part.split(",") for part in words.split()]
    if not 1 <= len(parts) <= 3:
        raise InputRefusedError(f"{words[:80]!a} is no scope: ACTIONS [TOPICS [FUNCTIONS]] is wanted")
    given = dict(zip(("actions", "topics", "functions"), parts, strict=False))
    try:
        return Scope.model_validate(given)
    except ValidationError as error:
        raise InputRefusedError(f"{words[:80]!a}: {_first(error)}") from error


def with_key(file: KeyFile, key: StoredKey) -> KeyFile:
    """The file with one key more. Raises `InputRefusedError` when its name is taken."""
    if any(one.name == key.name for one in file.keys):
        raise InputRefusedError(
            f"there is a key named {key.name} already", hint="revoke it first, or choose another name"
        )
    return KeyFile(keys=(*file.keys, key))


def without_key(file: KeyFile, wanted: str) -> tuple[KeyFile, StoredKey]:
    """The file without the key of that id or name, and that key. Raises `UnknownIdError`."""
    for key in file.keys:
        if wanted in (key.id, key.name):
            return KeyFile(keys=tuple(one for one in file.keys if one is not key)), key
    raise UnknownIdError(f"there is no key {wanted[:80]!a}", try_command="invoker keys list")


def load(path: Path, *, begin: bool = False) -> KeyFile:
    """The file as it is; with `begin` an empty one when there is none. Raises `SettingsError`."""
    try:
        return read_keys(path.read_bytes())
    except OSError as error:
        if begin and isinstance(error, FileNotFoundError):
            return KeyFile()
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except SettingsError as error:
        raise SettingsError(f"{path}: {error.message}", hint=error.hint) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While this is entered nobody else changes keys in the same folder: of two changes at once none is lost."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SettingsError(f"the folder {path.parent} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def store(path: Path, file: KeyFile) -> None:
    """Put the file in its place whole, readable by its owner only: whoever reads meanwhile sees the old or the new."""
    text = file.model_dump_json(indent=2) + "\n"
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made with mode 0600
        try:
            with os.fdopen(handle, "w") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            os.replace(name, path)
        except BaseException:  # interrupted too: a half-written file with hashes is left nowhere
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error


def _first(error: ValidationError) -> str:
    """The first thing that does not fit, without what was given: it may be a hash, or a secret in the wrong place."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
