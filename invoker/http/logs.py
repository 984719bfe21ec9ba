"""The log of a run from a gateway, gone on with when a connection breaks: no line twice, none missing that is kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from invoker.errors import ServerUnreachableError
from invoker.http.calls import Calls, Patience
from invoker.http.documents import log_line_of
from invoker.http.finding import quoted
from invoker.views import LogLine


async def lines_of(calls: Calls, run_id: str, *, follow: bool) -> AsyncGenerator[LogLine, None]:
    """The lines so far; with `follow` until the run ends.

    A gateway tells a log from its beginning each time, so the lines that were told are passed over; of a run that has
    ended in between only the tail may be kept, which is gone on with behind the last line that was told.
    """
    path, told, last = f"/v1/runs/{quoted(run_id)}/logs", 0, ""
    patience = Patience()
    while True:
        tail: list[LogLine] = []
        skip, again = told, told > 0
        try:
            events = calls.events(path, {"follow": "true"} if follow else None, resumable=False)
            async with aclosing(events):
                async for event in events:
                    patience.renew()
                    if event.name != "line":
                        continue
                    line = log_line_of(event.document)
                    if again and line.attempt is None:
                        tail.append(line)
                    elif skip:
                        skip -= 1
                    else:
                        told, last = told + 1, line.text
                        yield line
            for line in behind(last, tail):
                yield line
            return
        except ServerUnreachableError as error:
            await patience.pause(error)


def behind(last: str, tail: list[LogLine]) -> list[LogLine]:
    """What stands in the tail behind the last place of that line; all of it when the line is not there. Pure."""
    for place in range(len(tail), 0, -1):
        if tail[place - 1].text == last:
            return tail[place:]
    return tail
