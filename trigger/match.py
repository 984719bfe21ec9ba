"""Which functions an event is for: a token trie over the topic patterns, then the filters.

Pure. A lookup visits the nodes that the topic's tokens lead to, so its time does not grow with the number of
subscriptions, and the last few thousand topics are remembered. A `Matcher` never changes; a new catalog has a new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trigger.filter import EventAttributes, Filter
from trigger.function import Subscription

CACHED_NAMES = 100_000
"""How many function names the remembered topics hold together, half of it in either generation (about 10 MB)."""

_Target = tuple[str, Filter | None]


@dataclass(frozen=True, slots=True)
class SubscriptionVerdict:
    """What became of one subscription: matched or not, and the token or filter clause that decided, as a sentence."""

    function: str
    pattern: str
    matched: bool
    clause: str


class _Node:
    """What may follow a prefix of tokens: a literal, `*`, the end (`here`) or anything (`rest`)."""

    __slots__ = ("here", "literal", "rest", "star")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] | None = None
        self.star: _Node | None = None
        self.here: tuple[_Target, ...] = ()
        self.rest: tuple[_Target, ...] = ()


@dataclass(frozen=True, slots=True)
class _Hit:
    """What is known about a topic: all names, those without a filter, and the ones that a filter still decides."""

    names: tuple[str, ...]
    certain: tuple[str, ...]
    filtered: tuple[tuple[str, Filter], ...]


_NOTHING = _Hit((), (), ())


class Matcher:
    """Finds the functions of an event. Topics given to it must be legal (`wire.check_topic`)."""

    def __init__(self, subscriptions: Iterable[tuple[str, Subscription]]) -> None:
        self._subscriptions = tuple(subscriptions)
        self._root = _Node()
        for function, subscription in self._subscriptions:
            _insert(self._root, subscription.topic.split("."), (function, subscription.filter))
        self._recent: dict[str, _Hit] = {}
        self._older: dict[str, _Hit] = {}
        self._recent_names = 0

    def __len__(self) -> int:
        return len(self._subscriptions)

    def match(self, attributes: EventAttributes) -> tuple[str, ...]:
        """The names of the functions that the event is for, sorted, each once."""
        hit = self._recent.get(attributes.topic) or self._look_up(attributes.topic)
        if not hit.filtered:
            return hit.names
        fitting = {name for name, wanted in hit.filtered if wanted.matches(attributes)}
        return tuple(sorted(fitting.union(hit.certain))) if fitting else hit.certain

    def match_topic(self, topic: str) -> tuple[str, ...]:
        """The functions with a pattern that fits the topic, whatever their filters say; sorted, each once."""
        return (self._recent.get(topic) or self._look_up(topic)).names

    def explain(self, attributes: EventAttributes) -> list[SubscriptionVerdict]:
        """The verdict on every subscription, in the order they were given."""
        tokens = attributes.topic.split(".")
        return [_verdict(function, subscription, tokens, attributes) for function, subscription in self._subscriptions]

    def nearest(self, topic: str, n: int = 3) -> list[tuple[str, str]]:
        """Up to `n` (pattern, function) that the topic misses by few letters, nearest first; for "did you mean"."""
        limit = max(2, len(topic) // 4)
        tokens = topic.split(".")
        found: dict[tuple[str, str], int] = {}
        for function, subscription in self._subscriptions:
            example = _example(subscription.topic, tokens)
            distance = _edit_distance(topic, example, limit)
            if 0 < distance <= limit:
                found[subscription.topic, function] = distance
        return sorted(found, key=lambda pair: (found[pair], pair))[:n]

    def _look_up(self, topic: str) -> _Hit:
        hit = self._older.get(topic)
        if hit is None:
            hit = _walk(self._root, topic)
        # Two generations instead of a list of uses: a topic that is asked for again moves to the recent one, so what
        # falls out was not asked for during a whole generation, and a lookup costs one dictionary access.
        self._recent_names += len(hit.names) + 1
        if self._recent_names > CACHED_NAMES // 2:
            self._older, self._recent = self._recent, {}
            self._recent_names = len(hit.names) + 1
        self._recent[topic] = hit
        return hit


def _insert(node: _Node, tokens: list[str], target: _Target) -> None:
    for token in tokens:
        if token == ">":
            node.rest = (*node.rest, target)
            return
        if token == "*":
            node.star = node.star or _Node()
            node = node.star
        else:
            if node.literal is None:
                node.literal = {}
            node = node.literal.setdefault(token, _Node())
    node.here = (*node.here, target)


def _walk(root: _Node, topic: str) -> _Hit:
    found: list[_Target] = []
    level = [root]
    for token in topic.split("."):
        following: list[_Node] = []
        for node in level:
            if node.rest:
                found += node.rest
            if node.literal is not None and (child := node.literal.get(token)) is not None:
                following.append(child)
            if node.star is not None:
                following.append(node.star)
        if not following:
            break
        level = following
    else:
        for node in level:
            if node.here:
                found += node.here
    return _hit(found) if found else _NOTHING


def _hit(found: list[_Target]) -> _Hit:
    if len(found) == 1 and found[0][1] is None:
        names: tuple[str, ...] = (found[0][0],)
        return _Hit(names, names, ())
    certain = {name for name, wanted in found if wanted is None}
    filtered = tuple((name, wanted) for name, wanted in found if wanted is not None and name not in certain)
    names = tuple(sorted({name for name, _ in found}))
    return _Hit(names, tuple(sorted(certain)) if filtered else names, filtered)


def _verdict(
    function: str, subscription: Subscription, tokens: list[str], attributes: EventAttributes
) -> SubscriptionVerdict:
    difference = _difference(subscription.topic, tokens)
    if difference is not None:
        return SubscriptionVerdict(function, subscription.topic, False, difference)
    if subscription.filter is None:
        return SubscriptionVerdict(function, subscription.topic, True, "the topic fits")
    verdict = subscription.filter.explain(attributes)
    word = "fits" if verdict.matched else "does not fit"
    clause = f"filter {verdict.clause} {word}: {verdict.detail}"
    return SubscriptionVerdict(function, subscription.topic, verdict.matched, clause)


def _difference(pattern: str, tokens: list[str]) -> str | None:
    """Where the topic leaves the pattern, as a sentence; None when it fits."""
    wanted = pattern.split(".")
    for position, token in enumerate(wanted):
        if position >= len(tokens):
            more = "at least one more token" if token == ">" else repr(token)
            return f"the topic ends after token {position}, the pattern goes on with {more}"
        if token == ">":
            return None
        if token not in ("*", tokens[position]):
            return f"token {position + 1} is {tokens[position]!r}, wanted {token!r}"
    if len(tokens) > len(wanted):
        return f"the pattern ends after token {len(wanted)}, the topic goes on with {tokens[len(wanted)]!r}"
    return None


def _example(pattern: str, tokens: list[str]) -> str:
    """The topic that fits the pattern and is likest to the tokens: each wildcard takes what stands at its place."""
    made: list[str] = []
    for position, token in enumerate(pattern.split(".")):
        if token == ">":
            return ".".join([*made, *(tokens[position:] or ["*"])])
        made.append(tokens[position] if token == "*" and position < len(tokens) else token)
    return ".".join(made)


def _edit_distance(one: str, other: str, limit: int) -> int:
    """How many letters to insert, drop, change or swap; `limit + 1` as soon as it is more than that."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        previous, row = row, [i]
        for j, b in enumerate(other, 1):
            cost = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
        before = previous
    return row[-1]
