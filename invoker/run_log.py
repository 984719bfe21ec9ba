"""The lines of a run: from the controller that holds it, else the tail that is stored with its result."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from invoker.claimcheck import ClaimStore
from invoker.control import ControlServices
from invoker.lookup import Lookup
from invoker.result import Result
from invoker.views import LogLine, RunView


class RunLogs:
    """Reads the logs of one instance's runs."""

    def __init__(self, control: ControlServices, lookup: Lookup, claims: ClaimStore) -> None:
        self._control = control
        self._lookup = lookup
        self._claims = claims

    async def lines(self, run: RunView, *, follow: bool) -> AsyncGenerator[LogLine, None]:
        """The lines so far; with `follow` until the run ends. A queued run is asked for again until it starts."""
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
                async for line in self.kept(run.result):
                    yield line
                return
            if not follow:
                return

    async def kept(self, result: Result) -> AsyncGenerator[LogLine, None]:
        """The lines that are stored with a result: the last ones of all attempts together. Asks no controller."""
        text = result.log_tail
        if result.log_claim is not None:
            text = (await self._claims.read(result.log_claim)).decode("utf-8", "replace")
        if text is None:
            text = (await self._claims.log(result.run_id) or b"").decode("utf-8", "replace")
        for line in text.splitlines():
            yield LogLine(line)
