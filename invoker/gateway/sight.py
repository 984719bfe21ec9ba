"""What a caller may see. Everything else answers exactly as if it had never been there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from fastapi import Depends

from invoker import wire
from invoker.errors import ExpiredError, ForbiddenError, ServerUnreachableError, UnknownIdError
from invoker.gateway.access.scopes import Action, Caller
from invoker.gateway.gateway import Gateway
from invoker.lookup import Found
from invoker.views import CatalogInfo, RequestView, RunView

ANY_FUNCTION = "*"
"""The name of no function: only patterns that fit every name fit it."""


@dataclass(frozen=True, slots=True)
class Sight:
    """One caller's view of one gateway."""

    gateway: Gateway
    caller: Caller

    def may(self, action: Action, topic: str, function: str | None = None) -> bool:
        """Whether the caller may do that with a request of the topic, or with one run of it.

        A direct call has no topic of its own: who may see the function may see it.
        """
        called = self.gateway.client.names.function_of_direct_topic(topic)
        if called is not None:
            return self.caller.may(action, function=function or called)
        return self.caller.may(action, topic=topic, function=function)

    def check(self, action: Action, topic: str, function: str | None = None) -> None:
        """Raise `ForbiddenError` unless the caller may."""
        if not self.may(action, topic, function):
            called = self.gateway.client.names.function_of_direct_topic(topic)
            self.caller.check(action, topic=None if called else topic, function=function or called)

    def check_whole(self, action: Action, topic: str, functions: Collection[str]) -> None:
        """Raise `ForbiddenError` unless the caller may with every one of the functions, unseen ones too.

        Without any it is not known what the topic will run, so only a grant for all functions will do.
        """
        called = self.gateway.client.names.function_of_direct_topic(topic)
        for function in functions or (called or ANY_FUNCTION,):
            if not self.may(action, topic, function):
                # Nothing is said about which function it was: it may be one that the caller does not see.
                raise ForbiddenError(
                    f"{self.caller.name} may not {action} every function that this runs",
                    hint="name one function, or ask for a key whose scopes cover all of them",
                )

    def part_of(self, view: RequestView) -> RequestView | None:
        """The request with the runs that the caller may see, None when that is nothing."""
        if not self.may(Action.READ, view.topic):
            return None
        runs = tuple(run for run in view.runs if self.may(Action.READ, view.topic, run.function))
        return None if view.runs and not runs else replace(view, runs=runs)

    async def request(self, given: str) -> RequestView:
        """The visible part of the request of exactly that id. Raises `UnknownIdError` or `ExpiredError`."""
        view = self.part_of(await self.whole_request(given))
        if view is None:
            raise unknown("request", given)
        return view

    async def whole_request(self, given: str) -> RequestView:
        """The request with all of its runs, when the caller may see at least one."""
        try:
            view = await self.gateway.requests(given)
        except ExpiredError:
            raise  # told from the id alone
        except UnknownIdError as error:
            if "dead_id" in error.fields and self.may(Action.READ, str(error.fields.get("topic"))):
                raise
            raise unknown("request", given) from error
        if self.part_of(view) is None:
            raise unknown("request", given)
        return view

    async def run(self, run_id: str) -> tuple[RunView, str]:
        """The run of exactly that id, and its topic. Raises `UnknownIdError`."""
        found = await self.found(run_id)
        if found is None:
            raise unknown("run", run_id)
        return await self.run_of(found, run_id)

    async def run_of(self, found: Found, run_id: str) -> tuple[RunView, str]:
        """That run as it is now."""
        try:
            run, topic = await self.gateway.client.stored.run(found)
        except UnknownIdError as error:
            raise unknown("run", run_id) from error
        if not self.may(Action.READ, topic, run.function):
            raise unknown("run", run_id)
        return run, topic

    async def found(self, run_id: str) -> Found | None:
        """Whose run that is, whether the caller may see it or not; None when there is none."""
        if not wire.is_plain_id(run_id):
            return None
        runs = self.gateway.runs
        recent = runs.find(run_id)
        if recent is not None:
            return recent
        # Whoever was given the id by another gateway may be ahead of what has been heard here: that is waited for.
        known = await runs.known_from()
        return runs.find(run_id) or await self.gateway.client.stored.run_of_id(run_id, before=known)


def needs_nats(gateway: Gateway) -> Any:
    """For routes that read from NATS: while it is away they answer so at once, instead of when a time limit is over."""

    async def check() -> None:
        if not gateway.client.is_connected:
            raise ServerUnreachableError("NATS is away just now; the gateway connects again by itself")

    return Depends(check)


_LISTS = {"function": "functions", "dead letter": "dead-letters"}


def unknown(what: str, given: str, meant: str = "") -> UnknownIdError:
    """The one answer for what is not there and for what the caller may not see. `meant` goes before its hint."""
    return UnknownIdError(
        f"no {what} {given[:80]!a} is known", hint=f"{meant}GET /v1/{_LISTS.get(what, 'runs')} lists what there is"
    )


def function_meant(caller: Caller, catalog: CatalogInfo, name: str) -> str:
    """The question for the nearest names among those that the caller may see; empty when none is near."""
    seen = (one.name for one in catalog.functions if caller.may(Action.READ, function=one.name))
    near = get_close_matches(name[:80], list(seen), n=3)
    return f"did you mean {' or '.join(near)}? " if near else ""
