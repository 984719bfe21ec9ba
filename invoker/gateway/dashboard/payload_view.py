"""What a payload looks like on a page: JSON that folds, text, an image, or bytes in hex. Pure.

Of a large payload only the beginning is read (`READ_BYTES`), and of that only so much is shown that a page stays small;
the whole is what the download is for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from invoker.gateway.dashboard.secrets import NO_VEIL, Veil
from invoker.schema_secrets import CONCEALED

READ_BYTES = 256 * 1024
TEXT_BYTES = 64 * 1024
HEX_BYTES = 4 * 1024
MAX_IMAGE_BYTES = 16 * 1024 * 1024
EDITABLE_BYTES = 64 * 1024
MAX_NODES = 1_000
MAX_LEVELS = 24
MAX_STRING = 2_000
OPEN_NODES = 60
"""A document of at most so many values is unfolded at first."""

Kind = Literal["none", "json", "text", "image", "hex", "withheld", "gone"]
_IMAGES = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
DECLARED = "Its function declares fields of it secret, and it is no JSON document that could be shown without them."
UNKNOWN = (
    "What of it is secret cannot be told: a function that it was for or came from is not in the catalog, the run or "
    "event that it came from is not kept any more, or it is a failure's document that may quote a secret field."
)


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a JSON document. `kind` is a class of the style sheet, `key` its name or place, `more` how many of its
    values are left out. `at` tells it from all others."""

    at: int
    kind: Literal["object", "array", "string", "number", "word", "secret", "cut"]
    text: str = ""
    key: str | None = None
    children: tuple[Node, ...] = ()
    more: int = 0
    open: bool = False


@dataclass(frozen=True, slots=True)
class HexRow:
    """Sixteen bytes."""

    offset: str
    digits: str
    text: str


@dataclass(frozen=True, slots=True)
class PayloadView:
    """A payload on a page. `cut` says that not all of it is shown; `download` and `image` are addresses, None where
    there is nothing to be had; `words` say why nothing is shown."""

    kind: Kind
    size_bytes: int = 0
    content_type: str | None = None
    sha256: str | None = None
    cut: bool = False
    tree: Node | None = None
    text: str = ""
    rows: tuple[HexRow, ...] = ()
    words: str = ""
    download: str | None = None
    image: str | None = None
    hides: bool = False


class _Number(str):
    """A number as it was written: reading it as a float would show another one."""

    __slots__ = ()


def payload_view(
    beginning: bytes,
    size_bytes: int,
    content_type: str | None,
    sha256: str | None,
    *,
    download: str,
    image: str | None = None,
    veil: Veil = NO_VEIL,
) -> PayloadView:
    """The view of a payload of which these are the first bytes. With a veil that hides anything, only what a JSON
    document has besides; no bytes, and no hash of them (a short secret can be found by its hash)."""
    if size_bytes == 0:
        return PayloadView("none", 0, content_type)
    whole = len(beginning) >= size_bytes
    if veil.hides:
        return _veiled(beginning if whole else None, size_bytes, content_type, veil)
    facts: dict[str, Any] = {"size_bytes": size_bytes, "content_type": content_type, "sha256": sha256}
    facts["download"] = download
    if image is not None and size_bytes <= MAX_IMAGE_BYTES and image_type(beginning, content_type):
        return PayloadView("image", image=image, **facts)
    document = _json(beginning, content_type) if whole else None
    if document is not None:
        tree, cut = json_tree(document[0])
        return PayloadView("json", tree=tree, cut=cut, **facts)
    text = readable(beginning[:TEXT_BYTES], whole=size_bytes <= TEXT_BYTES)
    if text is not None:
        return PayloadView("text", text=text, cut=size_bytes > TEXT_BYTES, **facts)
    return PayloadView("hex", rows=hex_rows(beginning[:HEX_BYTES]), cut=size_bytes > HEX_BYTES, **facts)


def gone(size_bytes: int, content_type: str | None) -> PayloadView:
    """The view of a payload whose bytes are not kept any more."""
    return PayloadView("gone", size_bytes, content_type, words="Its bytes are not kept any more.")


def image_type(beginning: bytes, content_type: str | None) -> str | None:
    """The type of an image that says it is one, and begins like one; None for everything else."""
    kind = _media_type(content_type)
    if kind == "image/webp" and beginning[8:12] != b"WEBP":
        return None
    return kind if any(map(beginning.startswith, _IMAGES.get(kind, ()))) else None


def readable(data: bytes, *, whole: bool = True) -> str | None:
    """The bytes as text, None when they are none. When they are only the beginning, the last character may be cut."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if whole or len(data) - error.start > 3:
            return None
        text = data[: error.start].decode("utf-8")
    return None if _UNPRINTABLE.search(text) else text


def editable(data: bytes, size_bytes: int) -> str | None:
    """The payload as text that a person may change, None for what is too large or no text."""
    return readable(data) if size_bytes == len(data) <= EDITABLE_BYTES else None


def json_tree(value: Any) -> tuple[Node, bool]:
    """The document as nodes that fold, and whether parts of it are left out."""
    places, left = count(), [MAX_NODES]
    tree = _node(value, None, 0, places, left)
    made = next(places)
    return (_opened(tree, made), left[0] < 0 or _is_cut(tree))


def hex_rows(data: bytes) -> tuple[HexRow, ...]:
    """The bytes sixteen by sixteen."""
    return tuple(_hex_row(start, data[start : start + 16]) for start in range(0, len(data), 16))


def _veiled(data: bytes | None, size_bytes: int, content_type: str | None, veil: Veil) -> PayloadView:
    document = _json(data, content_type) if data is not None and not veil.unknown else None
    if document is None:
        words = UNKNOWN if veil.unknown else DECLARED
        return PayloadView("withheld", size_bytes, content_type, words=words, hides=True)
    tree, cut = json_tree(veil.without(document[0]))
    return PayloadView("json", size_bytes, content_type, tree=tree, cut=cut, hides=True)


def _json(data: bytes, content_type: str | None) -> tuple[Any] | None:
    """The JSON value of the bytes, in a tuple of one: what says that it is JSON, or is an object or an array."""
    declared = _media_type(content_type)
    if not (declared == "application/json" or declared.endswith("+json") or data.lstrip()[:1] in (b"{", b"[")):
        return None
    try:
        return (json.loads(data, parse_float=_Number, parse_int=_Number, parse_constant=_refuse),)
    except (ValueError, RecursionError):
        return None


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _media_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()


def _node(value: Any, key: str | None, level: int, places: Iterator[int], left: list[int]) -> Node:
    left[0] -= 1
    at = next(places)
    if key is not None and len(key) > MAX_STRING:
        key = f"{key[:MAX_STRING]}…"
    if not isinstance(value, dict | list):
        return _leaf(value, key, at)
    kind: Literal["object", "array"] = "object" if isinstance(value, dict) else "array"
    pairs = list(value.items()) if isinstance(value, dict) else [(str(index), one) for index, one in enumerate(value)]
    if level >= MAX_LEVELS and pairs:
        return Node(at, "cut", "deeper levels are left out", key)
    children: list[Node] = []
    for name, one in pairs:
        if left[0] <= 0:
            break
        children.append(_node(one, name, level + 1, places, left))
    return Node(at, kind, _counted(kind, len(pairs)), key, tuple(children), len(pairs) - len(children))


def _leaf(value: Any, key: str | None, at: int) -> Node:
    if value == CONCEALED:
        return Node(at, "secret", CONCEALED, key)
    if isinstance(value, _Number):
        return Node(at, "number", value[:MAX_STRING], key)
    if isinstance(value, str):
        shown = json.dumps(value[:MAX_STRING], ensure_ascii=False)
        return Node(at, "string", shown, key, more=max(0, len(value) - MAX_STRING))
    return Node(at, "word", json.dumps(value), key)


def _counted(kind: str, number: int) -> str:
    one = "field" if kind == "object" else "item"
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def _opened(node: Node, made: int, level: int = 0) -> Node:
    """The node with its folds open where there is room: all of a small document, the first levels of a large one."""
    if not node.children:
        return node
    is_open = made <= OPEN_NODES or level == 0
    children = tuple(_opened(one, made, level + 1) for one in node.children)
    return Node(node.at, node.kind, node.text, node.key, children, node.more, is_open)


def _is_cut(node: Node) -> bool:
    return node.kind == "cut" or node.more > 0 or len(node.key or "") > MAX_STRING or any(map(_is_cut, node.children))


def _hex_row(start: int, data: bytes) -> HexRow:
    text = "".join(chr(one) if 32 <= one < 127 else "." for one in data)
    return HexRow(f"{start:08x}", data.hex(" "), text)
