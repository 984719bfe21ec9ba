"""Many runs at once: what would be done with them, before it is done, and what was. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from invoker import wire
from invoker.quantities import count

MAX_RUNS = 1_000
"""Runs that are changed by one form at most: more are left for the next one, which is said."""
_NAMED = 6
"""Functions that are named with their numbers."""


class Change(StrEnum):
    """What can be done with many runs."""

    CANCEL = "cancel"
    REPLAY = "replay"


_HAPPENS = {
    Change.CANCEL: "Their processes or pods are ended. What they have published goes on",
    Change.REPLAY: "A new request for each, of that function alone; what it publishes starts the next stages again",
}
WORDS = {Change.CANCEL: "cancelled", Change.REPLAY: "replayed"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run that was selected, or fits the filters. `function` is None when nothing is known of the run."""

    run_id: str
    function: str | None = None
    finished: bool = False
    allowed: bool = False

    def is_for(self, change: Change) -> bool:
        """Whether that can be done: what has ended is not cancelled, and what goes on is not run a second time."""
        return self.function is not None and self.allowed and self.finished == (change is Change.REPLAY)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a form would do. `is_cut`: more runs fit than are looked at."""

    change: Change
    candidates: Sequence[Candidate]
    is_cut: bool = False

    @property
    def chosen(self) -> tuple[Candidate, ...]:
        """The runs that something is done with."""
        return tuple(one for one in self.candidates if one.is_for(self.change))

    @property
    def question(self) -> str:
        verb = "Cancel" if self.change is Change.CANCEL else "Replay"
        return f"{verb} {count(len(self.chosen), 'run')}?" if self.chosen else "There is nothing to be done"

    @property
    def facts(self) -> list[tuple[str, str]]:
        """The count, in words: what fits, what is left out and why, what is done."""
        known = [one for one in self.candidates if one.function is not None]
        allowed = [one for one in known if one.allowed]
        left = len(allowed) - len(self.chosen)
        what = "have finished already, and keep their result" if self.change is Change.CANCEL else "have not finished"
        more = f" (more fit: these are the first {MAX_RUNS:,}, do it again for the rest)" if self.is_cut else ""
        given = [
            ("Looked at", count(len(self.candidates), "run") + more),
            ("Not known", _left_out(len(self.candidates) - len(known), "are not there, or not yours to see")),
            ("Not yours to change", _left_out(len(known) - len(allowed), "need another key")),
            ("Left as they are", _left_out(left, what)),
            (f"Will be {WORDS[self.change]}", count(len(self.chosen), "run")),
            ("Of the functions", _by_function(self.chosen)),
            ("What happens", _HAPPENS[self.change] if self.chosen else ""),
        ]
        return [(name, words) for name, words in given if words]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run. `request_id` is the new request of one that was run again."""

    run_id: str
    done: bool
    words: str
    function: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of all of them."""

    change: Change
    each: Sequence[Outcome]

    @property
    def title(self) -> str:
        done = sum(one.done for one in self.each)
        rest = len(self.each) - done
        words = f"{count(done, 'run')} {WORDS[self.change]}"
        return f"{words}, {rest:,} not" if rest else words

    @property
    def refused(self) -> list[Outcome]:
        return [one for one in self.each if not one.done]

    @property
    def done(self) -> list[Outcome]:
        return [one for one in self.each if one.done]


def run_ids(given: Iterable[str]) -> list[str]:
    """The ids in that order, each once, without what cannot be one; at most so many as one form may change."""
    return [one for one in dict.fromkeys(given) if wire.is_plain_id(one)][:MAX_RUNS]


def replay_key(once: str, run_id: str) -> str:
    """The key that a run is replayed with by the form of that key: the same however often it is sent."""
    at = wire.time_of_id(once) or datetime.fromtimestamp(0, UTC)
    return wire.timed_digest_id(at, "replay", once, run_id)


def _left_out(number: int, why: str) -> str:
    return f"{count(number, 'run')}: they {why}" if number else ""


def _by_function(chosen: Sequence[Candidate]) -> str:
    numbers = Counter(one.function for one in chosen)
    named = [f"{name} {number:,}" for name, number in sorted(numbers.items(), key=lambda one: (-one[1], str(one[0])))]
    return ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
