"""Rules about one value of a manifest, and how small ones make large ones: what no rule names is refused.

Pure. A rule yields a sentence for everything it does not know to be harmless, each beginning with the place. Types are
strict: a number written as text, or true as 1, is refused before an API server would convert it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trigger.field_types import parse_quantity

Rule = Callable[[Any, str], Iterator[str]]
"""What is wrong with a value at a place; nothing when it is allowed."""

MAX_TEXT = 256 * 1024
MAX_SECONDS = 2**31 - 1


def text(pattern: re.Pattern[str] | None = None, what: str = "text", longest: int = MAX_TEXT) -> Rule:
    """Text without NUL, of a form where a pattern is given."""

    def check(value: Any, place: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"{place}: must be text, not {kind(value)}"
        elif "\0" in value:
            yield f"{place}: has a NUL character"
        elif len(value) > longest:
            yield f"{place}: is longer than {longest} characters"
        elif pattern is not None and not pattern.fullmatch(value):
            yield f"{place}: {shown(value)} is no {what}"

    return check


def number(low: int, high: int = MAX_SECONDS) -> Rule:
    """A whole number between the bounds, both allowed."""

    def check(value: Any, place: str) -> Iterator[str]:
        if isinstance(value, bool) or not isinstance(value, int):
            yield f"{place}: must be a whole number, not {kind(value)}"
        elif not low <= value <= high:
            yield f"{place}: {value} is not allowed; it must be {low} to {high}"

    return check


def one_of(*allowed: Any) -> Rule:
    """One of these values, of the same type: 1 is not true."""

    def check(value: Any, place: str) -> Iterator[str]:
        if not any(type(value) is type(one) and value == one for one in allowed):
            yield f"{place}: {shown(value)} is not allowed; it may be {' or '.join(shown(one) for one in allowed)}"

    return check


BOOLEAN = one_of(True, False)


def quantity(most: int | None = None) -> Rule:
    """A Kubernetes quantity that is not negative, and not above `most`."""

    def check(value: Any, place: str) -> Iterator[str]:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            yield f"{place}: must be a quantity, not {kind(value)}"
            return
        try:
            size = parse_quantity(value)
        except ValueError as error:
            yield f"{place}: {error}"
            return
        if size < 0:
            yield f"{place}: {value} is negative"
        elif most is not None and size > most:
            yield f"{place}: {value} is more than the {most} bytes that are allowed here"

    return check


def items(rule: Rule, most: int = 100, least: int = 0) -> Rule:
    """A list whose every value fits the rule."""

    def check(value: Any, place: str) -> Iterator[str]:
        if not isinstance(value, list | tuple):
            yield f"{place}: must be a list, not {kind(value)}"
            return
        if not least <= len(value) <= most:
            yield f"{place}: has {len(value)} entries; it must have {least} to {most}"
        for index, one in enumerate(value[:most]):
            yield from rule(one, f"{place}[{index}]")

    return check


def mapping(key: Callable[[str], str | None], rule: Rule, most: int = 100) -> Rule:
    """A mapping of free keys; `key` answers what is wrong with one."""

    def check(value: Any, place: str) -> Iterator[str]:
        if not isinstance(value, Mapping):
            yield f"{place}: must be a mapping, not {kind(value)}"
            return
        if len(value) > most:
            yield f"{place}: has {len(value)} entries; at most {most} are allowed"
        for name, one in value.items():
            problem = key(name) if isinstance(name, str) else "is no text"
            if problem is not None:
                yield f"{place}: the key {shown(name)} {problem}"
            yield from rule(one, f"{place}[{shown(name)}]")

    return check


def fields(
    known: Mapping[str, Rule], *, required: tuple[str, ...] = (), refused: Mapping[str, str] | None = None
) -> Rule:
    """A mapping of these keys only. `refused` says why of the ones that people will try."""
    why = refused or {}

    def check(value: Any, place: str) -> Iterator[str]:
        if not isinstance(value, Mapping):
            yield f"{place}: must be a mapping, not {kind(value)}"
            return
        for name in required:
            if name not in value:
                yield f"{_joined(place, name)}: is missing"
        for name, one in value.items():
            rule = known.get(name) if isinstance(name, str) else None
            if rule is not None:
                yield from rule(one, _joined(place, name))
            elif name in why:
                yield f"{_joined(place, name)}: is not allowed: {why[name]}"
            else:
                yield f"{_joined(place, shown(name))}: is not allowed; known here are {', '.join(sorted(known))}"

    return check


def exactly_one(kinds: Mapping[str, Rule], beside: Mapping[str, Rule], refused: Mapping[str, str]) -> Rule:
    """A mapping with one of the `kinds` and any of what stands `beside` it: a volume's source, an env value's."""
    whole = fields({**kinds, **beside}, refused=refused)

    def check(value: Any, place: str) -> Iterator[str]:
        yield from whole(value, place)
        if isinstance(value, Mapping) and sum(name in kinds for name in value) != 1:
            yield f"{place}: must have exactly one of {', '.join(sorted(kinds))}"

    return check


def both(*rules: Rule) -> Rule:
    """A value that fits them all."""

    def check(value: Any, place: str) -> Iterator[str]:
        for rule in rules:
            yield from rule(value, place)

    return check


def says(problem: Callable[[Any], str | None]) -> Rule:
    """A value about which `problem` says nothing."""

    def check(value: Any, place: str) -> Iterator[str]:
        sentence = problem(value)
        if sentence is not None:
            yield f"{place}: {sentence}"

    return check


def kind(value: Any) -> str:
    words = {type(None): "nothing", bool: "true/false", int: "a number", float: "a number", str: "text"}
    return words.get(type(value), "a mapping" if isinstance(value, Mapping) else "a list")


def shown(value: Any) -> str:
    found = value if isinstance(value, str) and value.isascii() and value.isprintable() else ascii(value)
    return found if len(found) <= 80 else f"{found[:77]}..."


def _joined(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
