"""Whether what was read of a log is all that was printed. Pure.

A node gives out the newest file of a container's log only: once it has begun a new one (`containerLogMaxSize`, about
10 MiB), a reading has a later beginning, and nothing in it says so. And a reading that something between has cut may
end as a whole one does. So a log is watched while it grows, without being kept: every reading after the end must begin
with all that was seen before, and its length must be confirmed by another one. Two that are cut at the same byte are
beyond that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto


class Verdict(Enum):
    """What one reading of an ended log is worth."""

    WHOLE = auto()
    AGAIN = auto()
    """It may have been cut on the way: nothing confirms its length."""
    CUT = auto()
    """Its beginning is no longer there: the node has begun a new file."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The first `size` bytes of a log, by their sha256; `is_end`: the log was at its end there, as it seemed."""

    size: int
    digest: bytes
    is_end: bool = False

    def begins(self, content: bytes) -> bool:
        """Whether these are the first bytes of the content."""
        return len(content) >= self.size and _digest(memoryview(content)[: self.size]) == self.digest


class Tally:
    """Counts a log as it comes, without keeping it."""

    def __init__(self) -> None:
        self.size = 0
        self.is_end = False
        self._sum = hashlib.sha256()

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._sum.update(chunk)

    def mark(self) -> Mark:
        """All that was counted so far."""
        return Mark(self.size, self._sum.digest(), self.is_end)


def written(mark: Mark, pod: str) -> str:
    """A mark of a pod's log as an annotation."""
    return f"{pod} {mark.size} {mark.digest.hex()}"


def read_mark(text: str, pod: str) -> tuple[Mark, ...]:
    """The mark of this pod's log in an annotation, if there is one."""
    try:
        name, size, digest = text.split(" ")
        found = Mark(int(size), bytes.fromhex(digest))
    except ValueError:
        return ()
    return (found,) if name == pod and found.size >= 0 else ()


def mark_of(content: bytes) -> Mark:
    """A reading, to compare the next one with."""
    return Mark(len(content), _digest(content), is_end=True)


def judge(content: bytes, marks: Sequence[Mark], before: Mark | None) -> Verdict:
    """What a reading is worth: `marks` were seen while the log grew, `before` is the reading before this one."""
    is_repeated = before is not None and before.size == len(content) and before.begins(content)
    if not all(mark.begins(content) for mark in marks):
        return Verdict.CUT if is_repeated else Verdict.AGAIN
    # A stream that was cut before its first byte looks like an empty log: it confirms none.
    is_confirmed = bool(content) and any(mark.is_end and mark.size == len(content) for mark in marks)
    return Verdict.WHOLE if is_repeated or is_confirmed else Verdict.AGAIN


def tail_of(read: bytes | None, heard: bytes | None, limit: int) -> bytes:
    """The end of a log from what the node has of it and what was heard of it as it came: the node's word counts, unless
    its newest file has only the last part of what was heard."""
    if read is None or (heard is not None and len(read) < limit and heard.endswith(read)):
        return heard or b""
    return read


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).digest()
