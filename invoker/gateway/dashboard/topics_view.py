"""Which topics and requests a caller sees, and how an explanation is read: values for the pages about topics.

What is pure says so; the others only give the event loop its turn in between, since there may be ten thousand topics.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from invoker.errors import InputRefusedError
from invoker.gateway.access.scopes import Action
from invoker.gateway.sight import ANY_FUNCTION, Sight
from invoker.gateway.topic_table import SeenRequest, TopicCounts
from invoker.views import ExplainedSubscription, Explanation

SHOWN_VERDICTS = 30
MAX_HEADERS = 64
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class TopicLine:
    """A topic in the list; `sequence` is the place of its newest request."""

    topic: str
    seen: int
    unmatched: int
    last_seen_at: datetime | None
    sequence: int

    @property
    def matched(self) -> int:
        return self.seen - self.unmatched


@dataclass(frozen=True, slots=True)
class Verdicts:
    """An explanation, ready to be read: who runs, what decided for the others (those that nearly fit first), and how
    many more there are."""

    topic: str
    matched: tuple[str, ...]
    fitting: tuple[ExplainedSubscription, ...]
    others: tuple[ExplainedSubscription, ...]
    left_out: int
    nearest: tuple[tuple[str, str], ...]


async def topics_seen(sight: Sight, wanted: Callable[[TopicLine], bool], limit: int) -> list[TopicLine]:
    """So many wanted topics that the caller may see, the one seen last first."""
    table = sight.gateway.topics
    if sight.caller.sees_everything():
        lines = (line_of(counts) for counts in table.topics())
        return [line for line, _ in zip(filter(wanted, lines), range(limit), strict=False)]
    parts = await _parts(sight)
    found: list[TopicLine] = []
    for number, counts in enumerate(list(table.topics())):
        line = seen_line(sight, counts, parts)
        if line is not None and wanted(line):
            found.append(line)
            if len(found) >= limit:
                break
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return found


async def one_topic(sight: Sight, topic: str) -> TopicLine | None:
    """What the caller may see of one topic, None when it was not seen."""
    counts = sight.gateway.topics.topic(topic)
    if counts is None or sight.caller.sees_everything():
        return line_of(counts) if counts is not None else None
    return seen_line(sight, counts, await _parts(sight, topic))


def line_of(counts: TopicCounts) -> TopicLine:
    """The line of a topic for whoever sees all of it. Pure."""
    return TopicLine(counts.topic, counts.seen, counts.unmatched, counts.newest.at, counts.newest.sequence)


def seen_line(sight: Sight, counts: TopicCounts, parts: dict[str, list[SeenRequest]]) -> TopicLine | None:
    """The line of a topic for this caller. Who may not see all of its runs is told of the newest requests only: how
    often others ran is not his to know. Pure."""
    if not sight.may(Action.READ, counts.topic):
        return None
    if sight.may(Action.READ, counts.topic, ANY_FUNCTION):
        return line_of(counts)
    seen = parts.get(counts.topic, ())
    if not seen:
        return None
    unmatched = sum(one.runs == 0 for one in seen)
    return TopicLine(counts.topic, len(seen), unmatched, seen[0].at, seen[0].sequence)


def may_see(sight: Sight, request: SeenRequest) -> bool:
    """Whether the caller may see that request at all. Pure."""
    if not sight.may(Action.READ, request.topic):
        return False
    if request.runs == 0:
        return True
    functions = request.functions if request.functions is not None else (ANY_FUNCTION,)
    return any(sight.may(Action.READ, request.topic, function) for function in functions)


async def seen_requests(
    sight: Sight, requests: Iterable[SeenRequest], wanted: Callable[[SeenRequest], bool], limit: int
) -> list[SeenRequest]:
    """The first of the wanted requests that the caller may see."""
    everything = sight.caller.sees_everything()
    found: list[SeenRequest] = []
    for number, one in enumerate(requests):
        if wanted(one) and (everything or may_see(sight, one)):
            found.append(one)
            if len(found) >= limit:
                break
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return found


def verdicts(explanation: Explanation) -> Verdicts:
    """The explanation in the order in which one reads it. Pure."""
    tokens, near = explanation.topic.split("."), {(one.pattern, one.function) for one in explanation.nearest}
    fitting = [one for one in explanation.subscriptions if one.matched]
    others = sorted(
        (one for one in explanation.subscriptions if not one.matched),
        key=lambda one: (
            not one.clause.startswith("filter"),
            (one.pattern, one.function) not in near,
            -_shared(one.pattern.split("."), tokens),
            one.function,
        ),
    )
    return Verdicts(
        explanation.topic, explanation.matched, tuple(fitting[:SHOWN_VERDICTS]), tuple(others[:SHOWN_VERDICTS]),
        max(0, len(fitting) - SHOWN_VERDICTS) + max(0, len(others) - SHOWN_VERDICTS),
        tuple((one.pattern, one.function) for one in explanation.nearest),
    )  # fmt: skip


def parsed_headers(text: str) -> dict[str, str]:
    """The headers that somebody typed, one to a line. Raises `InputRefusedError` with the line. Pure."""
    headers: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise InputRefusedError(f"line {number} of the headers has no name and colon", hint="write Name: value")
        headers[name.strip()] = value.strip()
    if len(headers) > MAX_HEADERS:
        raise InputRefusedError(f"there are {len(headers)} headers, and {MAX_HEADERS} at most can be tried")
    return headers


def header_lines(headers: dict[str, str]) -> str:
    """Headers as one types them. Pure."""
    return "\n".join(f"{name}: {value}" for name, value in headers.items())


def _shared(pattern: Sequence[str], tokens: Sequence[str]) -> int:
    """How many tokens of the pattern fit from the beginning on."""
    shared = 0
    for one, token in zip(pattern, tokens, strict=False):
        if one not in ("*", ">", token):
            break
        shared += 1
    return shared


async def _parts(sight: Sight, only: str | None = None) -> dict[str, list[SeenRequest]]:
    """The newest requests that the caller may see, by topic, newest first."""
    table = sight.gateway.topics
    newest = table.requests() if only is None else table.requests_of(only, 1_000)
    found: dict[str, list[SeenRequest]] = {}
    for number, one in enumerate(newest):
        if may_see(sight, one):
            found.setdefault(one.topic, []).append(one)
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return found
