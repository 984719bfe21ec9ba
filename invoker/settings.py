"""Where a client finds its NATS: the only place on the client's side that reads the environment.

Pure but for small files (a context, a secret, the state of a running `invoker dev`). What is chosen, and why, stands in
`ConnectionOptions.origin`.

Five levels, the first one that names an address decides: arguments, `INVOKER_NATS_*`, `NATS_*`, the running `invoker
dev` of this user, the selected context of the `nats` command. Who we are there comes from the same level or one above,
never from below: an address given by hand is not sent the password of a context that belongs to another server.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from invoker import wire
from invoker.connection import ConnectionOptions
from invoker.errors import ServerUnreachableError, SettingsError, TopicError

DEFAULT_URL = "nats://127.0.0.1:4222"
_THE_DEFAULT = "the default"
_ENVIRON = os.environ  # noqa: TID251 - this is the settings module of the client's side
_SCHEMES = ("nats", "tls", "ws", "wss")
_IN_FILES = ("user", "password", "token")
"""What `..._FILE` may name a file for; files are read again when a program that runs is refused."""
_IDENTITY = ("user", "password", "token", "nkey", "creds")
_TLS = ("ca", "cert", "key")


@dataclass(frozen=True, slots=True)
class _Level:
    """What one source says: values by name (url, user, …, inbox_prefix) and, for messages, where each came from."""

    origin: str
    values: Mapping[str, str]
    names: Mapping[str, str]

    def has(self, *keys: str) -> bool:
        return any(key in self.values for key in keys)


def connection_options(
    server: str | None = None,
    context: str | None = None,
    creds: str | Path | None = None,
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
    nkey: str | Path | None = None,
    ca: str | Path | None = None,
    cert: str | Path | None = None,
    key: str | Path | None = None,
    environ: Mapping[str, str] = _ENVIRON,
    state_dir: Path | None = None,
) -> ConnectionOptions:
    """The NATS to talk to and the identity to use there, looked for in the order that the module's docstring gives.

    Raises `SettingsError` naming the variable, argument or file that cannot be used. Nothing is contacted.
    """
    given = {
        "url": server, "creds": creds, "user": user, "password": password, "token": token, "nkey": nkey,
        "ca": ca, "cert": cert, "key": key,
    }  # fmt: skip
    flags = {name: str(value) for name, value in given.items() if value is not None}
    levels = list(_levels(flags, context, environ, state_dir or default_state_dir(environ)))
    return _options(levels)


def client_options(
    *,
    server: str | None = None,
    context: str | None = None,
    creds: Path | str | None = None,
    environ: Mapping[str, str] = _ENVIRON,
) -> ConnectionOptions:
    """As `connection_options`, for whoever publishes and asks.

    Raises `ServerUnreachableError` too: when `INVOKER_STATE` says which `invoker dev` is meant, none runs there, and
    nothing else names an address. What is meant for one server must not end up on another that listens on port 4222.
    """
    options = connection_options(server=server, context=context, creds=creds, environ=environ)
    if environ.get("INVOKER_STATE") and options.origin == _THE_DEFAULT:
        raise ServerUnreachableError(
            f"no `invoker dev` runs on INVOKER_STATE={environ['INVOKER_STATE']}",
            hint="start it, say where NATS is with --server or NATS_URL, or unset INVOKER_STATE",
        )
    return options


def default_state_dir(environ: Mapping[str, str] = _ENVIRON) -> Path:
    """Where `invoker dev` of this user keeps its state: `INVOKER_STATE`, or `invoker/dev` in the XDG state home."""
    if environ.get("INVOKER_STATE"):
        return Path(environ["INVOKER_STATE"]).expanduser()
    home = environ.get("XDG_STATE_HOME")
    base = Path(home) if home else _home(environ) / ".local" / "state"
    return base / "invoker" / "dev"


def instance_names(environ: Mapping[str, str] = _ENVIRON) -> wire.Names:
    """The names of the instance that is meant: `INVOKER_INSTANCE` and `INVOKER_TOPIC_PREFIX`, else the defaults."""
    instance = environ.get("INVOKER_INSTANCE") or "invoker"
    prefix = environ.get("INVOKER_TOPIC_PREFIX") or "events"
    try:
        wire.Names(instance=instance)
    except TopicError as error:
        raise SettingsError(f"INVOKER_INSTANCE: {error.message}") from error
    try:
        return wire.Names(instance=instance, topic_prefix=prefix)
    except TopicError as error:
        raise SettingsError(f"INVOKER_TOPIC_PREFIX: {error.message}") from error


def _levels(
    flags: dict[str, str], context: str | None, environ: Mapping[str, str], state_dir: Path
) -> Iterator[_Level]:
    yield _Level("the command line" if flags else "arguments", flags, {name: _flag(name) for name in flags})
    if context is not None:
        yield _context(context, environ, "--context")
    for prefix in ("INVOKER_NATS_", "NATS_"):
        yield _from_environ(prefix, environ)
        if environ.get(f"{prefix}CONTEXT"):
            yield _context(environ[f"{prefix}CONTEXT"], environ, f"{prefix}CONTEXT")
    yield from _running_dev(state_dir)
    yield from _selected_context(environ)
    yield _Level("default", {"url": DEFAULT_URL}, {"url": _THE_DEFAULT})


def _flag(name: str) -> str:
    return "--server" if name == "url" else f"--{name}"


def _options(levels: list[_Level]) -> ConnectionOptions:
    until = next(number for number, level in enumerate(levels) if level.has("url"))
    # A context named beside an address (an argument, or in the same kind of variable) still says who we are.
    reachable = levels[: until + 1] + [level for level in levels[until + 1 :] if _named_beside(levels[until], level)]
    at = levels[until]
    identity = next((level for level in reachable if level.has(*_IDENTITY)), None)
    tls = next((level for level in reachable if level.has(*_TLS)), None)
    inbox = next((level.values["inbox_prefix"] for level in reachable if level.has("inbox_prefix")), None)
    who = dict(identity.values) if identity else {}
    if "user" in who and "password" not in who and "token" not in who:
        who["token"] = who.pop("user")  # as the nats command has it: a user without a password is a token
    return ConnectionOptions(
        url=_url(at.values["url"], at.names.get("url", at.origin)),
        user=who.get("user"),
        password=who.get("password"),
        token=who.get("token"),
        nkey_file=_path(identity, "nkey"),
        creds_file=_path(identity, "creds"),
        ca_file=_path(tls, "ca"),
        cert_file=_path(tls, "cert"),
        key_file=_path(tls, "key"),
        inbox_prefix=inbox,
        origin=at.names.get("url", at.origin),
    )


def _named_beside(address: _Level, level: _Level) -> bool:
    pairs = {"the command line": "--context", "INVOKER_NATS_*": "INVOKER_NATS_CONTEXT", "NATS_*": "NATS_CONTEXT"}
    return level.origin.startswith(pairs.get(address.origin, "\0"))


def _from_environ(prefix: str, environ: Mapping[str, str]) -> _Level:
    values, names = {}, {}
    for key in ("url", *_IDENTITY, *_TLS, "inbox_prefix"):
        variable = f"{prefix}{key.upper()}"
        file = environ.get(f"{variable}_FILE") if key in _IN_FILES else None
        if environ.get(variable):
            values[key], names[key] = environ[variable], variable
        elif file:
            values[key], names[key] = _secret(Path(file), f"{variable}_FILE"), f"{variable}_FILE"
    return _Level(f"{prefix}*", values, names)


def _running_dev(state_dir: Path) -> Iterator[_Level]:
    file = state_dir / "dev.json"
    try:
        document = json.loads(file.read_text())
        url, pid = str(document["nats_url"]), int(document["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # none runs, or it is just being written: nothing to find here
    if _alive(pid):
        yield _Level(f"invoker dev ({file})", {"url": url}, {"url": f"invoker dev ({file})"})


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _selected_context(environ: Mapping[str, str]) -> Iterator[_Level]:
    try:
        name = (_nats_config(environ) / "context.txt").read_text().strip()
    except (OSError, ValueError):
        return
    if name:
        yield _context(name, environ, "the selected nats context")


def _context(name: str, environ: Mapping[str, str], named_by: str) -> _Level:
    if "/" in name or name.startswith("."):
        raise SettingsError(f"{named_by}: {name!r} is not the name of a nats context")
    file = _nats_config(environ) / "context" / f"{name}.json"
    try:
        document = json.loads(file.read_text())
    except FileNotFoundError as error:
        hint = "`nats context ls` lists them; `invoker dev` needs none"
        raise SettingsError(f"{named_by}: there is no nats context {name!r} ({file})", hint=hint) from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{named_by}: the nats context {file} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise SettingsError(f"{named_by}: the nats context {file} is not a JSON object")
    return _context_level(document, environ, f"{named_by} {name!r}", file)


def _context_level(document: dict[str, Any], environ: Mapping[str, str], origin: str, file: Path) -> _Level:
    values: dict[str, str] = {}
    for key in ("url", *_IDENTITY, *_TLS, "inbox_prefix"):
        value = document.get(key)
        if value is not None and not isinstance(value, str):
            raise SettingsError(f"the nats context {file}: {key} is not a text")
        if value:
            values[key] = _expanded(value, environ) if key in ("nkey", "creds", *_TLS) else value
    return _Level(origin, values, {key: f"{origin} ({file})" for key in values})


def _url(text: str, named_by: str) -> str:
    """The addresses, each with its scheme; several are separated by commas."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise SettingsError(f"{named_by}: {text!a} holds no NATS address")
    return ",".join(_one_url(part, named_by) for part in parts)


def _one_url(text: str, named_by: str) -> str:
    url = text if "://" in text else f"nats://{text}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(character.isspace() or not character.isprintable() for character in url):
        shown = re.sub(r"[^/]*@", "", text)  # what stands before an @ may be a password
        raise SettingsError(f"{named_by}: {shown!a} is not a NATS address such as nats://127.0.0.1:4222")
    return url


def _path(level: _Level | None, key: str) -> Path | None:
    """The file that the level names, which must exist: a wrong path is told with the setting's name."""
    if level is None or key not in level.values:
        return None
    path = Path(level.values[key]).expanduser()
    if not path.is_file():
        raise SettingsError(f"{level.names[key]}: the file {path} does not exist")
    return path


def _secret(path: Path, variable: str) -> str:
    try:
        return path.expanduser().read_text().strip()
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"{variable}: {path} cannot be read: {words}") from error


def _nats_config(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else _home(environ) / ".config") / "nats"


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    return str(_home(environ) / text[2:]) if text.startswith("~/") else text


def debug_wanted(environ: Mapping[str, str] = _ENVIRON) -> bool:
    """Whether `INVOKER_DEBUG` asks for tracebacks of unexpected errors."""
    return environ.get("INVOKER_DEBUG", "") not in ("", "0")
