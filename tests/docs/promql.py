"""As much of PromQL as is needed to say which series a query asks for: its selectors and the labels it groups by."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*")|(?P<range>\[[^\]]*\])|(?P<word>[a-zA-Z_:][a-zA-Z0-9_:]*)'
    r"|(?P<number>\d[\d.]*)|(?P<operator>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},])|(?P<space>\s+)"
)
_WORDS = {"and", "or", "unless", "bool", "offset", "Inf", "NaN"}
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}


@dataclass(frozen=True)
class Selector:
    """`name{label="value"}`: the matchers as (label, operator, value)."""

    name: str
    matchers: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Asked:
    """What one query asks for."""

    selectors: tuple[Selector, ...]
    grouped_by: frozenset[str]


def read(query: str) -> Asked:
    """The selectors of a query. Raises `ValueError` for what no query can contain."""
    tokens = _tokens(query)
    selectors, labels = [], set()
    index = 0
    while index < len(tokens):
        kind, text = tokens[index]
        following = tokens[index + 1][1] if index + 1 < len(tokens) else ""
        index += 1
        if kind != "word" or text in _WORDS:
            continue
        if text in _GROUPING and following == "(":
            end = next(place for place in range(index, len(tokens)) if tokens[place][1] == ")")
            labels |= {word for kind, word in tokens[index:end] if kind == "word"}
            index = end + 1
        elif following == "{":
            end = next(place for place in range(index, len(tokens)) if tokens[place][1] == "}")
            selectors.append(Selector(text, _matchers(tokens[index + 1 : end])))
            index = end + 1
        elif following != "(" and text not in _GROUPING and not _is_aggregation(tokens, index):
            selectors.append(Selector(text))
    return Asked(tuple(selectors), frozenset(labels))


def _is_aggregation(tokens: list[tuple[str, str]], index: int) -> bool:
    """Whether the word before is `sum by (…) (…)` and the like."""
    return index < len(tokens) and tokens[index][1] in ("by", "without")


def _matchers(tokens: list[tuple[str, str]]) -> tuple[tuple[str, str, str], ...]:
    parts = [text for _, text in tokens if text != ","]
    if len(parts) % 3:
        raise ValueError(f"not matchers: {parts}")
    return tuple((parts[at], parts[at + 1], parts[at + 2].strip('"')) for at in range(0, len(parts), 3))


def _tokens(query: str) -> list[tuple[str, str]]:
    found, place = [], 0
    while place < len(query):
        match = _TOKEN.match(query, place)
        if match is None:
            raise ValueError(f"cannot be read: {query[place:]!r}")
        place = match.end()
        if match.lastgroup not in ("space", "range", None):
            found.append((str(match.lastgroup), match.group()))
    return found
