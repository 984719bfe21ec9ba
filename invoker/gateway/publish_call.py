"""What a publishing call says besides its body: id, headers, parameters, how long it waits. Pure.

A header of HTTP reaches the event when it says so: `Invoker-Header-<name>: value` becomes the event's header `<name>`
(in lower case: HTTP knows no case of names). So does a single `Invoker-Header-ce-type` of an event that is no whole
CloudEvent; of one that is, its own attributes win. Everything else about the call stays between the caller and the
gateway.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from invoker import wire
from invoker.errors import InputRefusedError, RequestIdError

HEADER_PREFIX = "invoker-header-"
PARAM_PREFIX = wire.H_PARAM_PREFIX.lower()
KEY_HEADER = "idempotency-key"
RESERVED_PARAMETERS = frozenset({"wait"})
"""Names in a query that are the call's own; a parameter of such a name is given as `Invoker-Param-<name>`."""
MAX_KEY_CHARACTERS = 255
MAX_PARAMETERS = 100
_NOT_OURS = ("invoker-", "nats-")
_OWN_HEADERS = frozenset({"content-type", "x-request-id", "traceparent", "tracestate"})
_KEY = re.compile(r"[!-~]([ -~]*[!-~])?")
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_WAIT = re.compile(r"\s*wait\s*=\s*\"?([0-9]{1,9}(?:\.[0-9]{1,6})?)\"?\s*(?:;.*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller wants to be answered: at once (`respond_async`), with the list of runs (neither), or with what
    the runs gave, within `wait` seconds. `preferred` says that it came as a `Prefer` header."""

    wait: float | None = None
    respond_async: bool = False
    preferred: bool = False

    @property
    def applied(self) -> str | None:
        """The value of `Preference-Applied`, None when no preference was honoured."""
        if not self.preferred:
            return None
        return "respond-async" if self.wait is None else f"wait={self.wait:g}"


@dataclass(frozen=True, slots=True)
class PublishCall:
    """A call, read. `headers` and `params` go into the event, `key` identifies it."""

    wish: Wish
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)


def read_call(headers: Iterable[tuple[str, str]], query: bytes, max_wait: float) -> PublishCall:
    """The call with these headers (lower-case names) and that query; raises `InputRefusedError` for what is wrong."""
    pairs = list(headers)
    asked = _query(query)
    return PublishCall(
        wish=_wish(asked, [value for name, value in pairs if name == "prefer"], max_wait),
        key=_key([value for name, value in pairs if name == KEY_HEADER]),
        headers=_event_headers(pairs),
        params=_params(asked, pairs),
    )


def _query(query: bytes) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeError:
        raise InputRefusedError("the query is no percent-encoded UTF-8") from None
    except ValueError:
        raise InputRefusedError(f"the query has more than {MAX_PARAMETERS} parameters") from None


def _wish(asked: list[tuple[str, str]], prefer: list[str], max_wait: float) -> Wish:
    given = [value for name, value in asked if name == "wait"]
    if len(given) > 1:
        raise InputRefusedError("wait is given twice")
    if given:
        return Wish(wait=min(_seconds(given[0]), max_wait))
    tokens = [token for line in prefer for token in line.split(",")]
    for token in tokens:
        found = _WAIT.fullmatch(token)
        if found is not None:
            return Wish(wait=min(float(found[1]), max_wait), preferred=True)
    if any(token.partition(";")[0].strip().lower() == "respond-async" for token in tokens):
        return Wish(respond_async=True, preferred=True)
    return Wish()  # preferences that are not understood are ignored: RFC 7240


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf or not text.isascii():
        raise InputRefusedError(
            f"wait must be a number of seconds from 0, is {text[:40]!a}",
            errors=[{"pointer": "/query/wait", "detail": "must be a number of seconds"}],
        )
    return seconds


def _key(values: list[str]) -> str | None:
    if not values:
        return None
    if len(values) > 1:
        raise RequestIdError("the header Idempotency-Key is given twice")
    key = values[0]
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]  # written as a string of structured fields, which the draft of the header asks for
    if len(key) > MAX_KEY_CHARACTERS or not _KEY.fullmatch(key):
        raise RequestIdError(
            f"the Idempotency-Key must be 1 to {MAX_KEY_CHARACTERS} printable ASCII characters, no blanks at its ends",
            hint="leave it out and an id is made",
        )
    return key


def _event_headers(pairs: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        if not name.startswith(HEADER_PREFIX):
            continue
        own = name[len(HEADER_PREFIX) :]
        if not own or own in found:
            raise _header_refused(name, "is given twice" if own else "names no header")
        if own.startswith(_NOT_OURS) or own in _OWN_HEADERS:
            raise _header_refused(name, "is Invoker's own, or has a header of its own")
        found[own] = _latin(name, value)
    return found


def _latin(name: str, value: str) -> str:
    """HTTP's bytes as the UTF-8 that everybody sends today."""
    try:
        return value if value.isascii() else value.encode("latin-1").decode()
    except UnicodeError:
        raise _header_refused(name, "is no UTF-8") from None


def _params(asked: list[tuple[str, str]], pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The parameters; names are compared without case, since they travel as headers."""
    given = [(name, value) for name, value in asked if name not in RESERVED_PARAMETERS]
    given += [
        (name[len(PARAM_PREFIX) :], _latin(name, value)) for name, value in pairs if name.startswith(PARAM_PREFIX)
    ]
    found: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in given:
        if not _PARAMETER.fullmatch(name):
            raise _param_refused(name, "must be a letter, then up to 62 of a-z A-Z 0-9 _ -")
        if name.lower() in seen:
            raise _param_refused(name, "is given twice")
        seen.add(name.lower())
        found[name] = value
    return found


def _header_refused(name: str, why: str) -> InputRefusedError:
    return InputRefusedError(
        f"the header {name[:80]!a} {why}", errors=[{"pointer": f"/header/{name[:80]}", "detail": why}]
    )


def _param_refused(name: str, why: str) -> InputRefusedError:
    return InputRefusedError(
        f"the parameter {name[:80]!a} {why}", errors=[{"pointer": f"/params/{name[:80]}", "detail": why}]
    )
