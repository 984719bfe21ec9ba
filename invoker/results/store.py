"""Where polls are answered from: the seam between those who ask for a request's results and what holds them.

NATS is the truth (`invoker.results.nats`) and decides everything; a store answers reads. It may only say what is final:
whoever reads right after a reply, or after the feed told of a result, must find that result.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from invoker.result import Result
from invoker.results.nats import Answers

if TYPE_CHECKING:
    from collections.abc import Iterator

NATS, REDIS = "nats", "redis"


class ResultStore(Protocol):
    """Answers for the requests of one instance."""

    async def answers(self, request_id: str) -> Answers:
        """What is stored for a request, never older than what the caller can know by now. Raises
        `ServerUnreachableError` when NATS is needed for that and does not answer."""
        ...

    async def result(self, request_id: str, function: str) -> Result | None:
        """The same for one run: its result, None while it is unfinished (or expired)."""
        ...


@dataclass(slots=True)
class Origin:
    """Which store answered the reads of one call: the slowest of them, so NATS once it was needed."""

    name: str | None = None

    def add(self, name: str) -> None:
        self.name = NATS if NATS in (name, self.name) else name


_ORIGIN: ContextVar[Origin | None] = ContextVar("results_origin", default=None)


@contextmanager
def origin_noted() -> Iterator[Origin]:
    """Notes which store answers the reads within it, those of tasks that are started there included."""
    origin = Origin()
    token = _ORIGIN.set(origin)
    try:
        yield origin
    finally:
        _ORIGIN.reset(token)


def note_origin(name: str) -> None:
    """Say which store answered a read."""
    origin = _ORIGIN.get()
    if origin is not None:
        origin.add(name)
