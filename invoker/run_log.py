"""The lines of a run: from the controller that holds it, else the tail that is stored with its result."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from invoker.claimcheck import ClaimStore
from invoker.control import ControlServices
from invoker.lookup import Lookup
from invoker.result import Result
from invoker.views import LogLine, RunView

FINISHING_SECONDS = 15.0
"""How long who follows waits for the log of a run that has its result, when no controller tells of it."""
PAUSE_SECONDS = 0.2


class RunLogs:
    """Reads the logs of one instance's runs."""

    def __init__(self, control: ControlServices, lookup: Lookup, claims: ClaimStore) -> None:
        self._control = control
        self._lookup = lookup
        self._claims = claims

    async def lines(self, run: RunView, *, follow: bool) -> AsyncGenerator[LogLine, None]:
        """The lines so far; with `follow` until the run ends. A queued run is asked for again until it starts."""
        clock, kept_by = asyncio.get_running_loop().time, None
        while True:
            answered = False
            async with aclosing(self._control.log_lines(run.run_id, follow=follow)) as lines:
                async for line in lines:
                    if line is None:
                        break
                    answered = True
                    yield line
            if answered:
                return
            run = await self._lookup.run(run.request_id, run.function)
            if run.result is not None:
                kept_by = kept_by or clock() + FINISHING_SECONDS
                if not follow or clock() > kept_by or not await self._is_being_finished(run.result):
                    async for line in self.kept(run.result):
                        yield line
                    return
            elif not follow:
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _is_being_finished(self, result: Result) -> bool:
        """Whether the log may not be kept yet, though there is a result: the function's own answer. It is kept before
        the run leaves the queue. Whose controller has much to do, he heard nothing of it."""
        if result.log_tail is not None or result.log_claim is not None:
            return False
        return await self._lookup.is_queued(result.run_id)

    async def kept(self, result: Result) -> AsyncGenerator[LogLine, None]:
        """The lines that are stored with a result: the last ones of all attempts together. Asks no controller."""
        text = result.log_tail
        if result.log_claim is not None:
            text = (await self._claims.read(result.log_claim)).decode("utf-8", "replace")
        if text is None:
            text = (await self._claims.log(result.run_id) or b"").decode("utf-8", "replace")
        for line in kept_lines(text):
            yield line


def kept_lines(text: str) -> Iterator[LogLine]:
    """The lines of a stored log, each with the attempt below whose mark it stands; before the first mark with None.

    The marks are no lines. A number that is not above the one before is what a function wrote: pure.
    """
    attempt: int | None = None
    for line in text.splitlines():
        mark = _ATTEMPT_MARK.fullmatch(line)
        if mark is not None and int(mark[1]) > (attempt or 1):
            attempt = int(mark[1])
        else:
            yield LogLine(line, attempt)


def attempt_mark(attempt: int) -> str:
    """The line of a stored log below which an attempt begins; the first one has none."""
    return f"[Invoker: attempt {attempt}]"


_ATTEMPT_MARK = re.compile(r"\[Invoker: attempt ([0-9]{1,6})\]")
