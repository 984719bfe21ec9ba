"""The messages between the engine and its spawner: tuples in length-prefixed frames.

Standard library only. Both ends run the same interpreter, so `marshal` is safe to use here and costs a tenth of JSON;
a frame holds a list of messages, because a busy loop sends many at once.
"""

from __future__ import annotations

import marshal
import struct
from typing import Any, NamedTuple

# engine → spawner
START = "start"
SIGNAL = "signal"
REMOVE = "remove"

# spawner → engine
READY = "ready"
STARTED = "started"
REFUSED = "refused"
OUTPUT = "output"
ENDED = "ended"

STDOUT = 1
STDERR = 2

_LENGTH = struct.Struct("<I")


class Order(NamedTuple):
    """What the spawner is to start. `folder` is the work folder; its parent is made when missing.

    `mark` is an entry of the child's environment (`NAME=value`) that nothing else has: by it the spawner knows whose
    descendant a process is. `log_bytes` bounds what waits for the engine; `output_bytes` is None unless stdout is the
    output, which then is kept in `spool` beyond a small size, up to that many bytes.
    """

    path: str
    argv: list[str]
    env: dict[str, str]
    folder: str
    make_folder: bool
    mark: str
    memory_bytes: int | None
    log_bytes: int
    output_bytes: int | None
    spool: str
    termination: str


class Ended(NamedTuple):
    """How a process ended; nothing of it lives any more.

    `exit_code` is negative for a signal. `output` is stdout when it was asked for and is small, else it is in the
    spool; `output_size` counts all of it, also what was not kept. `trouble` is the sentence of a spool not written.
    """

    exit_code: int
    output: bytes
    output_size: int
    spooled: bool
    termination: bytes
    trouble: str


def encode(messages: list[Any]) -> bytes:
    """One frame."""
    body = marshal.dumps(messages)
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Any]:
        """The messages complete by now, in order."""
        data = self._rest + data if self._rest else data
        messages: list[Any] = []
        at = 0
        while len(data) - at >= 4:
            (length,) = _LENGTH.unpack_from(data, at)
            if len(data) - at - 4 < length:
                break
            messages += marshal.loads(data[at + 4 : at + 4 + length])
            at += 4 + length
        self._rest = data[at:]
        return messages
