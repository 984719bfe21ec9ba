"""Files that say who we are at NATS: checked before they are used, so that a wrong one is named in words.

The NATS library would answer a file without a key with a library's own exception, or by reading for ever.
"""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path

from invoker.errors import SettingsError

_JWT, _SEED = "BEGIN NATS USER JWT", "BEGIN USER NKEY SEED"


def check_nkey_file(path: Path) -> Path:
    """Return the path of a file that holds the seed of an nkey, else raise `SettingsError`."""
    _check_seed(_text(path, "nkey").strip(), f"the nkey file {path}")
    return path


def check_creds_file(path: Path) -> Path:
    """Return the path of a credentials file (a user's JWT and seed), else raise `SettingsError`."""
    lines = [line.strip() for line in _text(path, "credentials").splitlines()]
    jwt, seed = _after(lines, _JWT), _after(lines, _SEED)
    if jwt is None or seed is None:
        raise SettingsError(
            f"the credentials file {path} holds no user JWT and seed", hint="`nsc generate creds` writes such a file"
        )
    _check_seed(seed, f"the credentials file {path}")
    return path


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text()
    except FileNotFoundError as error:
        raise SettingsError(f"the {what} file {path} does not exist") from error
    except OSError as error:
        raise SettingsError(f"the {what} file {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"the {what} file {path} is not text") from error


def _after(lines: list[str], mark: str) -> str | None:
    """The line behind the first one with the mark."""
    return next((line for before, line in pairwise(lines) if mark in before and line), None)


def _check_seed(seed: str, what: str) -> None:
    if importlib.util.find_spec("nkeys") is None:
        raise SettingsError(
            f"{what} cannot be used: the package nkeys is missing",
            hint="pip install '.[auth]' in the checkout of Invoker",
        )
    import nkeys  # type: ignore[import-untyped]  # an extra, only for who uses keys; it has no types

    try:
        nkeys.from_seed(bytearray(seed.encode())).wipe()
    except (nkeys.NkeysError, ValueError) as error:
        raise SettingsError(f"{what} holds no valid seed of an nkey") from error
