"""Callers and their grants: what each may do, on which topics, with which functions. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from invoker import wire
from invoker.errors import ForbiddenError


class Action(StrEnum):
    """What can be allowed. Each stands for itself, save that `admin` includes all others and `operate` reading."""

    PUBLISH = "publish"
    """Send events and call functions."""
    READ = "read"
    """See requests, runs, results, inputs, outputs, logs, functions and dead letters."""
    OPERATE = "operate"
    """Cancel, replay, redrive, pause and resume."""
    ADMIN = "admin"
    """Reload the catalog, and everything else."""


_INCLUDES = {
    Action.ADMIN: frozenset(Action),
    Action.OPERATE: frozenset({Action.OPERATE, Action.READ}),
}


@dataclass(frozen=True, slots=True)
class Grant:
    """Some actions on the topics and functions that fit the patterns: topic patterns as in NATS, names with `*`."""

    actions: frozenset[Action]
    topics: tuple[str, ...] = (">",)
    functions: tuple[str, ...] = ("*",)

    def covers(self, action: Action, topic: str | None, function: str | None) -> bool:
        """Whether it allows that. What is None is not looked at: an action that concerns no topic needs none."""
        if not any(action in _INCLUDES.get(given, {given}) for given in self.actions):
            return False
        if topic is not None and not any(wire.subject_matches(pattern, topic) for pattern in self.topics):
            return False
        return function is None or any(fnmatchcase(function, pattern) for pattern in self.functions)

    def covers_pattern(self, action: Action, pattern: str, function: str) -> bool:
        """Whether it allows that on every topic of the pattern."""
        return self.covers(action, None, function) and any(wire.pattern_covers(one, pattern) for one in self.topics)

    @property
    def is_unlimited(self) -> bool:
        return ">" in self.topics and "*" in self.functions


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: a name for the audit and the rate (never a secret), how it was found, and its grants.

    `kind` is `key`, `jwt` or `anonymous`; `calls_per_second` is a rate of the caller's own, None the gateway's.
    """

    name: str
    kind: str
    grants: tuple[Grant, ...]
    calls_per_second: float | None = None

    @property
    def label(self) -> str:
        """The caller in logs: a key and a token of the same name are told apart."""
        return self.name if self.kind == self.name else f"{self.kind}:{self.name}"

    def may(self, action: Action, *, topic: str | None = None, function: str | None = None) -> bool:
        """Whether one of the grants covers the action on that topic and that function."""
        return any(grant.covers(action, topic, function) for grant in self.grants)

    def sees_everything(self) -> bool:
        """Whether no topic and no function is hidden from the caller, so that lists need no look at each row."""
        return any(grant.is_unlimited and grant.covers(Action.READ, None, None) for grant in self.grants)

    def operates_everything(self) -> bool:
        """Whether the caller may operate every function on every topic, so that no payload is kept from it."""
        return any(grant.is_unlimited and grant.covers(Action.OPERATE, None, None) for grant in self.grants)

    def may_do_everything(self) -> bool:
        """Whether nothing at all is refused to the caller."""
        return any(grant.is_unlimited and Action.ADMIN in grant.actions for grant in self.grants)

    def uncovered(self, action: Action, patterns: Iterable[str], function: str) -> tuple[str, ...]:
        """Those of the topic patterns on which the action with that function is not allowed as a whole. Each is covered
        by a single pattern of a grant, or it is not."""
        return tuple(
            one for one in patterns if not any(grant.covers_pattern(action, one, function) for grant in self.grants)
        )

    def check(self, action: Action, *, topic: str | None = None, function: str | None = None) -> None:
        """Raise `ForbiddenError`, naming what was asked for, unless the caller may."""
        if not self.may(action, topic=topic, function=function):
            on = " ".join(part for part in (topic and f"on {topic}", function and f"with {function}") if part)
            raise ForbiddenError(
                f"{self.name} may not {action} {on}".rstrip(), hint="ask for a key whose scopes cover it"
            )


def anonymous(actions: Iterable[str]) -> Caller | None:
    """The caller without key or token, None when such calls may do nothing at all."""
    allowed = frozenset(Action(action) for action in actions)
    return Caller("anonymous", "anonymous", (Grant(allowed),)) if allowed else None
