"""CloudEvents 1.0 over HTTP: structured, binary and batched, read into events. Pure.

The attributes of a CloudEvent become headers `ce-<name>`, as in the NATS and HTTP bindings; its data becomes the
event's bytes, exactly as they stand in the message: of JSON data the very text, not what a parser made of it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import unquote_to_bytes

from invoker import wire
from invoker.errors import ContentRefusedError, InputRefusedError, InvokerError

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
PREFIX = "ce-"
MAX_BATCH_EVENTS = 1_000
_FAMILY = "application/cloudevents"
_REQUIRED = ("specversion", "id", "source", "type")
_NAME = re.compile(r"[a-z0-9]{1,64}")
_URI_REFERENCE = re.compile(r"[!-~]+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(\s*;[ -~]*)?")
_WHITE = re.compile(r"[ \t\r\n]*")
_MAX_ID_CHARACTERS = 1_024


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One event: its context attributes as text, its data as bytes (binary mode: None, the body is the data)."""

    attributes: Mapping[str, str]
    data: bytes | None = None
    content_type: str | None = field(default=None)

    @property
    def type(self) -> str:
        return self.attributes["type"]

    @property
    def key(self) -> str:
        """What makes two events the same one: source and id together, as the specification has it."""
        return f"{self.attributes['source']} {self.attributes['id']}"

    def headers(self) -> dict[str, str]:
        """The headers of the event that it becomes."""
        return {f"{PREFIX}{name}": value for name, value in self.attributes.items()}


def mode_of(headers: Mapping[str, str]) -> str | None:
    """How a call carries CloudEvents: `structured`, `batch`, `binary`, or None for a call that carries none.

    `headers` have lower-case names. Raises `ContentRefusedError` for formats other than JSON.
    """
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == STRUCTURED:
        return "structured"
    if media == BATCH:
        return "batch"
    if media.startswith(_FAMILY):
        raise ContentRefusedError(
            f"CloudEvents as {media[:60]!a} are not taken", hint=f"{STRUCTURED}, {BATCH}, or binary mode (ce- headers)"
        )
    return "binary" if f"{PREFIX}specversion" in headers else None


def read_binary(headers: Iterable[tuple[str, str]]) -> CloudEvent:
    """The event whose attributes are in the headers. Raises `InputRefusedError` naming the attribute."""
    given: dict[str, str] = {}
    content_type = None
    for name, value in headers:
        if name == "content-type":
            content_type = value
        elif name.startswith(PREFIX) and name != f"{PREFIX}datacontenttype":
            attribute = name[len(PREFIX) :]
            if attribute in given:
                raise _refused(attribute, "stands twice")
            given[attribute] = _decoded(attribute, value)
    return CloudEvent(_checked(given), None, content_type)


def read_structured(data: bytes) -> CloudEvent:
    """The event in a JSON document. Raises `InputRefusedError` naming the attribute or the place."""
    text = _text(data)
    event, end = _event(text, _skip(text, 0))
    _nothing_after(text, end)
    return event


def read_batch(data: bytes) -> list[CloudEvent | InvokerError]:
    """The events of a JSON array, in order; one that is no CloudEvent is its error, and the others stand.

    Raises `InputRefusedError` when the whole is no JSON array, or has more than 1,000 elements.
    """
    text = _text(data)
    found: list[CloudEvent | InvokerError] = []
    for start in _elements(text):
        if len(found) >= MAX_BATCH_EVENTS:
            raise InputRefusedError(f"a batch holds at most {MAX_BATCH_EVENTS} events", limit=MAX_BATCH_EVENTS)
        try:
            found.append(_event(text, start)[0])
        except InputRefusedError as error:
            found.append(error)
    return found


def _event(text: str, start: int) -> tuple[CloudEvent, int]:
    members, end = _members(text, start)
    data, content_type = _data(text, members)
    given = {name: _attribute(name, value) for name, (value, _, _) in members.items() if name not in _DATA}
    present = {name: value for name, value in given.items() if value is not None}
    declared = present.pop("datacontenttype", None)
    if declared is not None and not _MEDIA_TYPE.fullmatch(declared):
        raise _refused("datacontenttype", "is no media type")
    return CloudEvent(_checked(present), data, content_type), end


_DATA = ("data", "data_base64")
Member = tuple[Any, int, int]
"""A value, and where it stands in the text."""


def _data(text: str, members: Mapping[str, Member]) -> tuple[bytes, str | None]:
    """The event's bytes and content type: JSON as it stands, other text as the text it is, or decoded base64."""
    declared = members.get("datacontenttype", (None, 0, 0))[0]
    content_type = str(declared) if isinstance(declared, str) and not isinstance(declared, _Number) else None
    present = [name for name in _DATA if name in members and members[name][0] is not None]
    if len(present) == 2:
        raise _refused("data_base64", "stands beside data; an event has one of them")
    if not present:
        return b"", content_type
    value, start, end = members[present[0]]
    if present[0] == "data_base64":
        return _unbased(value), content_type
    if isinstance(value, str) and not isinstance(value, _Number) and content_type and not _is_json(content_type):
        return _encoded("data", value), content_type
    return _encoded("data", text[start:end]), content_type or wire.CONTENT_TYPE_JSON


def _is_json(content_type: str) -> bool:
    media = content_type.partition(";")[0].strip().lower()
    return media.endswith(("/json", "+json"))


def _unbased(value: Any) -> bytes:
    if not isinstance(value, str):
        raise _refused("data_base64", "must be a text of base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _refused("data_base64", "is no base64") from None


def _attribute(name: str, value: Any) -> str | None:
    """The text of an attribute's value; null is as good as absent."""
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case _Number():
            if name in (*_REQUIRED, "datacontenttype", "dataschema", "subject", "time"):
                raise _refused(name, "must be a text")
            if not re.fullmatch(r"-?[0-9]{1,10}", value):
                raise _refused(name, "must be a whole number of 32 bits, a text or a boolean")
            return str(value)
        case str():
            return value
        case _:
            raise _refused(name, "must be a text, a whole number or a boolean")


def _checked(given: Mapping[str, str]) -> dict[str, str]:
    """The attributes, if they are a CloudEvent's."""
    for name in _REQUIRED:
        if not given.get(name):
            raise _refused(name, "is missing" if name not in given else "is empty")
    if given["specversion"] != "1.0":
        raise _refused("specversion", f"must be 1.0, is {given['specversion'][:20]!a}")
    for name, value in given.items():
        if not _NAME.fullmatch(name):
            raise InputRefusedError(
                f"attribute name {name[:80]!a} must be 1 to 64 of a-z and 0-9",
                errors=[{"pointer": f"/{name[:80]}", "detail": "is no attribute name"}],
            )
        _encoded(name, value)
        if not value.isprintable():
            raise _refused(name, "has a control character")
    _check_forms(given)
    return dict(given)


def _check_forms(given: Mapping[str, str]) -> None:
    if len(given["source"]) + len(given["id"]) > _MAX_ID_CHARACTERS:
        raise _refused("id", f"is longer, with its source, than {_MAX_ID_CHARACTERS} characters")
    if not _URI_REFERENCE.fullmatch(given["source"]):
        raise _refused("source", "is no URI reference")
    if "dataschema" in given and not _URI.fullmatch(given["dataschema"]):
        raise _refused("dataschema", "is no absolute URI")
    if given.get("subject") == "":
        raise _refused("subject", "is empty")
    if "time" in given and not _is_instant(given["time"]):
        raise _refused("time", "is no instant as RFC 3339 writes them")


def _is_instant(text: str) -> bool:
    try:
        return datetime.fromisoformat(text.upper()).tzinfo is not None and text[10:11] in "Tt"
    except ValueError:
        return False


def _decoded(name: str, value: str) -> str:
    """A header's value: percent-encoded UTF-8, in double quotes or not."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    try:
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except (UnicodeDecodeError, UnicodeEncodeError):
        raise _refused(name, "is no UTF-8") from None


def _encoded(name: str, value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise _refused(name, "holds half of a surrogate pair, which no UTF-8 can carry") from None


def _refused(attribute: str, why: str) -> InputRefusedError:
    return InputRefusedError(
        f"the CloudEvent's {attribute} {why}",
        attribute=attribute,
        errors=[{"pointer": f"/{attribute}", "detail": why}],
    )


# JSON, member by member: so that the bytes of `data` are known, and a name that stands twice is seen.


class _Number(str):
    """A number as it is written: none is rounded, and none is too long to be read."""

    __slots__ = ()


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


_DECODER = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_constant)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputRefusedError(f"the body is no UTF-8 (byte {error.start})") from None


def _members(text: str, start: int) -> tuple[dict[str, Member], int]:
    if text[start : start + 1] != "{":
        raise InputRefusedError("a CloudEvent is a JSON object")
    members: dict[str, Member] = {}
    at = _skip(text, start + 1)
    if text[at : at + 1] == "}":
        return members, at + 1
    while True:
        name, at = _value(text, at)
        if not isinstance(name, str) or isinstance(name, _Number):
            raise InputRefusedError(f"the body is no JSON (at character {at})")
        if name in members:
            raise _refused(name[:80], "stands twice")
        begin = _skip(text, _expect(text, at, ":"))
        value, end = _value(text, begin)
        members[name] = (value, begin, end)
        at = _skip(text, end)
        if text[at : at + 1] == "}":
            return members, at + 1
        at = _skip(text, _expect(text, at, ","))


def _elements(text: str) -> Iterator[int]:
    """Where the elements of an array begin."""
    at = _skip(text, _expect(text, 0, "[", "a batch is a JSON array"))
    if text[at : at + 1] == "]":
        _nothing_after(text, at + 1)
        return
    while True:
        yield at
        at = _skip(text, _value(text, at)[1])
        if text[at : at + 1] == "]":
            _nothing_after(text, at + 1)
            return
        at = _skip(text, _expect(text, at, ","))


def _value(text: str, start: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, start)
    except RecursionError:
        raise InputRefusedError("the JSON is nested too deeply") from None
    except ValueError as error:
        raise InputRefusedError(f"the body is no JSON: {str(error)[:120]}") from None


def _skip(text: str, start: int) -> int:
    found = _WHITE.match(text, start)
    return found.end() if found is not None else start


def _expect(text: str, start: int, character: str, words: str | None = None) -> int:
    at = _skip(text, start)
    if text[at : at + 1] != character:
        raise InputRefusedError(words or f"the body is no JSON: {character!r} is missing at character {at}")
    return at + 1


def _nothing_after(text: str, end: int) -> None:
    if _skip(text, end) != len(text):
        raise InputRefusedError(f"the body is no JSON: something follows its end at character {end}")
