"""Dead letters as pages show them: the reason in words with what to do, and what would become of many. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from invoker import wire
from invoker.errors import InvokerError
from invoker.gateway.dashboard.function_view import listens
from invoker.quantities import count
from invoker.views import DeadLetter, FunctionInfo

MAX_LETTERS = 200
"""Letters that are sent again by one form."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A reason in words, and what to do about it."""

    words: str
    next: str


REASONS = {
    "no-subscription": Advice(
        "Nothing matched, while a function's file could not be read",
        "Mend the refused file; then send the event again. When nothing should have matched, leave the letter.",
    ),
    "idempotency-mismatch": Advice(
        "Its id was used before, for another event",
        "The publisher must give each event an id of its own. Sent again from here it has a new one.",
    ),
    "invalid-topic": Advice(
        "Its topic breaks a rule",
        "Have its publisher use another topic, and publish there. Sent again as it is, it is refused again.",
    ),
    "invalid-reply-subject": Advice(
        "It asks for a reply on a subject that is not allowed",
        "Allow the subject (INVOKER_REPLY_SUBJECTS), or have the publisher ask for another one. "
        "Sent again from here it asks for no reply.",
    ),
    "invalid-request-id": Advice(
        "One of its headers is no id, or no number of hops",
        "Mend the program that sets these headers. Sent again from here it has none of them.",
    ),
    "payload-too-large": Advice(
        "It, or its headers, are larger than is allowed",
        "Have its publisher send less, or raise INVOKER_MAX_EVENT_BYTES.",
    ),
    "hop-limit": Advice(
        "Its chain has run in a circle, or is too long",
        "Break the circle first: some stage publishes on a topic that leads back to it. Then send the event again.",
    ),
    "claim-check": Advice(
        "Its bytes are not what its claim check says, or are gone",
        "Have its publisher send it again. From here it can only be sent with other bytes.",
    ),
    "internal": Advice(
        "It could not be accepted, however often that was tried",
        "The controllers' logs say why. When that is mended, send the event again.",
    ),
}
UNKNOWN = Advice(
    "It could not be accepted",
    "The message says why; the controllers' logs say more. When the cause is mended, send the event again.",
)


@dataclass(frozen=True, slots=True)
class LettersFilter:
    """What the list is narrowed to: a reason, and a topic or topic pattern."""

    reason: str = ""
    topic: str = ""

    @property
    def is_narrow(self) -> bool:
        return bool(self.reason or self.topic)

    @property
    def problem(self) -> str | None:
        """Why the pattern is none."""
        try:
            if self.topic:
                wire.check_pattern(self.topic)
        except InvokerError as error:
            return error.message
        return None

    def fits(self, letter: DeadLetter) -> bool:
        return self.reason in ("", letter.reason) and (not self.topic or wire.subject_matches(self.topic, letter.topic))


@dataclass(frozen=True, slots=True)
class LetterLine:
    """One letter in the list. `may_redrive`: the reader may send it again."""

    letter: DeadLetter
    advice: Advice
    topic_page: bool
    may_redrive: bool


@dataclass(frozen=True, slots=True)
class RedrivePlan:
    """What is asked before many letters are sent again. `others` are not there, or not the reader's to send."""

    chosen: tuple[DeadLetter, ...]
    others: int

    @property
    def question(self) -> str:
        return f"Send {count(len(self.chosen), 'event')} again?" if self.chosen else "There is nothing to send again."

    @property
    def facts(self) -> list[tuple[str, str]]:
        counts = Counter(letter.reason for letter in self.chosen)
        found = [("Chosen", count(len(self.chosen), "dead letter"))] if self.chosen else []
        found += [(advice_of(reason).words, f"{number:,}") for reason, number in counts.most_common()]
        if self.others:
            found.append(("Left out", f"{self.others:,} that are not there any more, or that you may not send again"))
        if self.chosen:
            found.append(("What happens", "Each becomes a new request that names the old one; the letters stay"))
        return found


@dataclass(frozen=True, slots=True)
class RedriveOutcome:
    """What became of one letter: the request that it is now, or why it is none."""

    dead_id: str
    topic: str | None
    request_id: str | None
    words: str


def advice_of(reason: str) -> Advice:
    return REASONS.get(reason, UNKNOWN)


def line_of(letter: DeadLetter, *, topic_page: bool, may_redrive: bool) -> LetterLine:
    return LetterLine(letter, advice_of(letter.reason), topic_page, may_redrive)


def is_topic(topic: str) -> bool:
    """Whether it is one, and so has a page: a letter's topic may be what is wrong with it."""
    try:
        wire.check_topic(topic)
    except InvokerError:
        return False
    return True


def chosen_ids(given: Sequence[str]) -> list[str]:
    """The ids that a form names, each once, at most so many as are done at once."""
    return list(dict.fromkeys(one for one in given if one and one.isascii() and one.isalnum() and len(one) <= 64))[
        :MAX_LETTERS
    ]


def listeners_of(functions: Sequence[FunctionInfo], topic: str, called: str | None) -> list[FunctionInfo]:
    """The functions that may have run for an event of the topic; of a direct call the one that is called."""
    if called is not None:
        return [one for one in functions if one.name == called]
    return [one for one in functions if listens(one, topic)]
