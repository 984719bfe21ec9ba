"""What goes on now: some unfinished runs, those that run first."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime

from invoker.gateway.access.scopes import Action
from invoker.gateway.sight import Sight
from invoker.listing import RunFilter
from invoker.result import State
from invoker.views import FunctionInfo, RunRow

SHOWN = 12
MAX_LOOKED_AT = 200
"""Unfinished runs that are looked at for those which the caller may see."""
MAX_FUNCTIONS = 12
"""Functions that are asked for runs which began before a long row of waiting ones."""
_ORDER = {State.RUNNING: 0, State.STARTING: 1}
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


async def running_now(sight: Sight, shown: int = SHOWN) -> list[RunRow]:
    """Up to so many unfinished runs that the caller may see: running, starting, queued, each newest first."""
    # Where many wait the newest are all of that kind: what runs was accepted long before them.
    newest, oldest = await asyncio.gather(_newest(sight, shown), _oldest(sight, shown))
    unique = {row.run_id: row for row in (*newest, *oldest)}
    return in_order(list(unique.values()))[:shown]


def in_order(rows: list[RunRow]) -> list[RunRow]:
    """Running before starting before queued, each newest first. Pure."""
    newest = sorted(rows, key=lambda row: row.started_at or row.queued_at or _LONG_AGO, reverse=True)
    return sorted(newest, key=lambda row: _ORDER.get(row.state, 2))


def busiest(functions: tuple[FunctionInfo, ...], most: int = MAX_FUNCTIONS) -> list[FunctionInfo]:
    """The functions that have runs going on, most of them first. Pure."""
    return sorted((one for one in functions if one.running), key=lambda one: -one.running)[:most]


async def _newest(sight: Sight, shown: int) -> list[RunRow]:
    """The newest unfinished runs."""
    everything, looked_at = sight.caller.sees_everything(), 0
    found: list[RunRow] = []
    async with aclosing(sight.gateway.client.stored.unfinished(RunFilter(), at_once=shown)) as rows:
        async for row in rows:
            looked_at += 1
            if everything or sight.may(Action.READ, row.topic, row.function):
                found.append(row)
            if len(found) >= shown or looked_at >= MAX_LOOKED_AT:
                break
    return found


async def _oldest(sight: Sight, shown: int) -> list[RunRow]:
    """The first unfinished runs of the functions that have some going on; none when the newest are all there is."""
    visible = tuple(
        one for one in sight.gateway.catalog.present.functions if sight.caller.may(Action.READ, function=one.name)
    )
    if sum(one.running + one.queued for one in visible) <= shown:
        return []
    functions = busiest(visible)
    each = -(-shown // max(1, len(functions)))
    parts = await asyncio.gather(
        *(sight.gateway.client.stored.first_unfinished(one.name, min(each, one.running)) for one in functions)
    )
    return [row for part in parts for row in part if sight.may(Action.READ, row.topic, row.function)]
