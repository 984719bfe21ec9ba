"""Named moments of the path, so that a test can end the process exactly there. In production nothing happens at them.

The names are the twelve places at which custody could be lost; `docs/custody.md` lists them.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Moment(StrEnum):
    """A place on the path at which the process may die without harm."""

    EVENT_STORED = "event-stored"
    RECORD_WRITTEN = "record-written"
    SOME_RUNS_WRITTEN = "some-runs-written"
    EVENT_ACKED = "event-acked"
    RUN_DELIVERED = "run-delivered"
    BEFORE_START = "before-start"
    STARTED = "started"
    OUTPUT_STORED = "output-stored"
    VERDICT_STORED = "verdict-stored"
    REPLY_SENT = "reply-sent"
    NEXT_PUBLISHED = "next-published"
    RUN_ACKED = "run-acked"


@dataclass(slots=True)
class Moments:
    """Counts nothing and does nothing unless `crash_at` names a moment: then the process kills itself with SIGKILL
    when that moment is reached for the `nth` time, after leaving the file `proof` behind."""

    crash_at: Moment | None = None
    nth: int = 1
    proof: Path | None = None
    _seen: Counter[Moment] = field(default_factory=Counter)

    def reached(self, moment: Moment) -> None:
        if self.crash_at is not moment:
            return
        self._seen[moment] += 1
        if self._seen[moment] == self.nth:
            if self.proof is not None:
                self.proof.write_text(f"{moment} {self.nth} {os.getpid()}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    @classmethod
    def parse(cls, text: str | None, proof: Path | None) -> Moments:
        """`name` or `name:nth`; raises ValueError for an unknown name."""
        if not text:
            return cls()
        name, _, nth = text.partition(":")
        return cls(crash_at=Moment(name), nth=int(nth or 1), proof=proof)
