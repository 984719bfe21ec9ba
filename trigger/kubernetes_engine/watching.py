"""The stream of a watch, from bytes to events. Pure: chunks come in as the network cut them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from trigger.kubernetes_engine.failures import failure_of_status, no_answer


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK; of a bookmark's object only `metadata.resourceVersion` counts."""

    type: str
    object: dict[str, Any]


@dataclass(slots=True)
class Lines:
    """Joins chunks to lines, of any length, without copying a long one again for each of its chunks."""

    _parts: list[bytes] = field(default_factory=list)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes, without their ends; empty ones are left out."""
        *complete, rest = chunk.split(b"\n")
        lines: list[bytes] = []
        for piece in complete:
            self._parts.append(piece)
            lines.append(b"".join(self._parts))
            self._parts.clear()
        if rest:
            self._parts.append(rest)
        return [line for line in lines if line.strip()]

    @property
    def unfinished(self) -> bool:
        """Whether the last line has not ended: a stream that ends now was cut."""
        return bool(self._parts)


def event_of(line: bytes) -> WatchEvent:
    """The event on one line. Raises `ApiFailure`: of the `Status` of an ERROR event, of 0 for what is no event."""
    try:
        document = from_json(line)
        kind, content = document["type"], document["object"]
    except (ValueError, KeyError, TypeError) as error:
        raise no_answer("the watch was cut within an event") from error
    if kind == "ERROR":
        raise failure_of_status(content)
    return WatchEvent(kind, content)
