"""Which functions an event is for: a token trie over the topic patterns, then the filters.

Pure. A lookup visits the nodes that the topic's tokens lead to, so its time does not grow with the number of
subscriptions, and the last few thousand topics are remembered. A `Matcher` never changes; a new catalog has a new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trigger.filter import EventAttributes, Filter
from trigger.function import Subscription
from trigger.nearest import Suggestions

REMEMBERED_NAMES = 100_000
"""How many function names the remembered topics hold together, half of it in either generation (about 10 MB)."""

Target = tuple[str, Filter | None]
"""A function, and the filter that its subscription puts behind the pattern."""

# A node of the trie is a dictionary: a token leads to what follows it, three numbers (no token is one) to the rest.
# Why not a class with four fields: every object less is a cache miss less, which is all that grows with the catalog.
_Node = dict[Any, Any]
_STAR = 0  # what follows when the token is anything
_REST = 1  # the targets of patterns that end here in `>`
_HERE = 2  # the targets of patterns that end here

# Instead of a chain of nodes, a pattern without neighbours is a leaf: its remaining tokens, whether a wildcard is among
# them, and its targets.
_Leaf = tuple[list[str], bool, tuple[Target, ...]]


@dataclass(frozen=True, slots=True)
class SubscriptionVerdict:
    """What became of one subscription: matched or not, and the token or filter clause that decided, as a sentence."""

    function: str
    pattern: str
    matched: bool
    clause: str


class _Hit:
    """What is known about a topic: all names, those without a filter, and the ones that a filter still decides."""

    __slots__ = ("certain", "filtered", "names", "targets")

    def __init__(self, targets: tuple[Target, ...]) -> None:
        self.targets = targets
        self.names: tuple[str, ...] = tuple(sorted({name for name, _ in targets}))
        filtered = [(name, wanted) for name, wanted in targets if wanted is not None]
        certain = {name for name, wanted in targets if wanted is None} if filtered else ()
        self.filtered = tuple((name, wanted) for name, wanted in filtered if name not in certain)
        self.certain = tuple(sorted(certain)) if self.filtered else self.names


_NOTHING = _Hit(())


class Matcher:
    """Finds the functions of an event. Topics given to it must be legal (`wire.check_topic`)."""

    def __init__(
        self, subscriptions: Iterable[tuple[str, Subscription]], remembered_names: int = REMEMBERED_NAMES
    ) -> None:
        self._remembered_names = remembered_names
        self._subscriptions = tuple(subscriptions)
        self._literal, self._trie = _build(self._subscriptions)
        self._suggestions = Suggestions((one.topic, function) for function, one in self._subscriptions)
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
        return self._suggestions.nearest(topic, n)

    def forget(self) -> None:
        """Drop what is remembered about topics; for measurements."""
        self._recent, self._older, self._recent_names = {}, {}, 0

    def _look_up(self, topic: str) -> _Hit:
        hit = self._older.get(topic)
        if hit is None:
            hit = self._find(topic)
        # Two generations instead of a list of uses: a topic that is asked for again moves to the recent one, so what
        # falls out was not asked for during a whole generation, and a lookup costs one dictionary access.
        self._recent_names += len(hit.names) + 1
        if self._recent_names > self._remembered_names // 2:
            self._older, self._recent = self._recent, {}
            self._recent_names = len(hit.names) + 1
        self._recent[topic] = hit
        return hit

    def _find(self, topic: str) -> _Hit:
        literal = self._literal.get(topic, _NOTHING)
        found = _walk(self._trie, topic)
        return _Hit((*literal.targets, *found)) if found else literal


def _build(subscriptions: Iterable[tuple[str, Subscription]]) -> tuple[dict[str, _Hit], _Node]:
    """Patterns without a wildcard by their text, ready to be answered, and a trie of the others."""
    literal: dict[str, list[Target]] = {}
    trie: _Node = {}
    for function, subscription in subscriptions:
        target = (function, subscription.filter)
        tokens = subscription.topic.split(".")
        if "*" in tokens or ">" in tokens:
            _insert(trie, tokens, 0, target)
        else:
            literal.setdefault(subscription.topic, []).append(target)
    return {topic: _Hit(tuple(targets)) for topic, targets in literal.items()}, trie


def _insert(node: _Node, tokens: list[str], position: int, target: Target) -> None:
    if position == len(tokens):
        node[_HERE] = (*node.get(_HERE, ()), target)
        return
    token, tail = tokens[position], tokens[position + 1 :]
    if token == ">":
        node[_REST] = (*node.get(_REST, ()), target)
        return
    key = _STAR if token == "*" else token
    following = node.get(key)
    if following is None:
        node[key] = (tail, "*" in tail or ">" in tail, (target,))
    elif type(following) is not tuple:
        _insert(following, tokens, position + 1, target)
    elif following[0] == tail:
        node[key] = (tail, following[1], (*following[2], target))
    else:
        node[key] = _split(following)
        _insert(node[key], tokens, position + 1, target)


def _split(leaf: _Leaf) -> _Node:
    """The leaf as a node, because a second pattern begins like it."""
    node: _Node = {}
    for target in leaf[2]:
        _insert(node, leaf[0], 0, target)
    return node


def _walk(trie: _Node, topic: str) -> list[Target]:
    """The targets of every pattern in the trie that fits the topic."""
    found: list[Target] = []
    tokens = topic.split(".")
    level = [trie]
    position = 0
    for token in tokens:
        position += 1
        following = []
        for node in level:
            if _REST in node:
                found += node[_REST]
            for child in (node.get(token), node.get(_STAR)):
                if child is None:
                    continue
                if type(child) is not tuple:
                    following.append(child)
                elif _fits(child[0], tokens, position) if child[1] else child[0] == tokens[position:]:
                    found += child[2]
        if not following:
            return found
        level = following
    for node in level:
        found += node.get(_HERE, ())
    return found


def _fits(tail: list[str], tokens: list[str], position: int) -> bool:
    """Whether the tokens from `position` on fit the remaining ones of a pattern."""
    for wanted in tail:
        if wanted == ">":
            return position < len(tokens)
        if position >= len(tokens) or (wanted != "*" and wanted != tokens[position]):
            return False
        position += 1
    return position == len(tokens)


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
