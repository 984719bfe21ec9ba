"""Which pattern was probably meant by a topic that matches nothing: "did you mean".

Pure, and bounded in time: a flood of unmatched events asks this for every one of them. A small catalog is compared
whole; in a large one only patterns that begin or go on like the topic are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import nsmallest
from itertools import chain, islice

CANDIDATES = 500
COMPARISONS = 30
REMEMBERED = 256

Pair = tuple[str, str]
"""A pattern and its function."""


class Suggestions:
    """The patterns of a catalog, to be asked for the nearest ones. Never changes, save for what it remembers."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self._pairs = tuple(pairs)
        self._by_first: dict[str, list[Pair]] = {}
        self._by_rest: dict[str, list[Pair]] = {}
        self._answers: dict[tuple[str, int], list[Pair]] = {}
        if len(self._pairs) > CANDIDATES:
            for pair in self._pairs:
                first, _, rest = pair[0].partition(".")
                self._by_first.setdefault(first, []).append(pair)
                self._by_rest.setdefault(rest, []).append(pair)

    def nearest(self, topic: str, n: int) -> list[Pair]:
        """Up to `n` pairs that the topic misses by at most three letters (two when it is short), nearest first."""
        answer = self._answers.get((topic, n))
        if answer is None:
            if len(self._answers) >= REMEMBERED:
                self._answers.clear()
            answer = self._answers[topic, n] = self._find(topic, n)
        return list(answer)

    def _find(self, topic: str, n: int) -> list[Pair]:
        tokens = topic.split(".")
        letters = set(topic)
        limit = 3 if len(topic) >= 8 else 2
        likely = nsmallest(COMPARISONS, self._candidates(topic), key=lambda pair: _unlikeness(pair[0], tokens, letters))
        found: dict[Pair, int] = {}
        for pair in likely:
            distance = edit_distance(topic, _example(pair[0], tokens), limit)
            if 0 < distance <= limit:
                found[pair] = distance
        return sorted(found, key=lambda pair: (found[pair], pair))[:n]

    def _candidates(self, topic: str) -> Iterator[Pair]:
        if not self._by_first:
            return iter(self._pairs)
        first, _, rest = topic.partition(".")
        near = (self._by_rest.get(rest, ()), self._by_first.get(first, ()), self._by_first.get("*", ()))
        return islice(chain(*near), CANDIDATES)


def _unlikeness(pattern: str, tokens: list[str], letters: set[str]) -> tuple[int, int]:
    """How many tokens differ, then how many letters are not there at all: cheap, to choose what is compared."""
    wanted = pattern.split(".")
    differing = abs(len(wanted) - len(tokens))
    for token, given in zip(wanted, tokens):  # noqa: B905 -- the rest is counted already
        differing += token not in (given, "*", ">")
    return differing, len(letters.difference(pattern))


def _example(pattern: str, tokens: list[str]) -> str:
    """The topic that fits the pattern and is likest to the tokens: each wildcard takes what stands at its place."""
    made: list[str] = []
    for position, token in enumerate(pattern.split(".")):
        if token == ">":
            return ".".join([*made, *(tokens[position:] or ["*"])])
        made.append(tokens[position] if token == "*" and position < len(tokens) else token)
    return ".".join(made)


def edit_distance(one: str, other: str, limit: int) -> int:
    """How many letters to insert, drop, change or swap; `limit + 1` as soon as it is more than that."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    one, other = _without_common_ends(one, other)
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


def _without_common_ends(one: str, other: str) -> tuple[str, str]:
    """Both texts without what they begin and end with alike: it costs nothing, and most of a topic is of that kind."""
    begin = end = 0
    shorter = min(len(one), len(other))
    while begin < shorter and one[begin] == other[begin]:
        begin += 1
    while end < shorter - begin and one[-1 - end] == other[-1 - end]:
        end += 1
    return one[begin : len(one) - end], other[begin : len(other) - end]
