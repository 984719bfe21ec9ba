"""One who watches the feed: results and news of runs come two ways, and are told in an order that can be."""

from __future__ import annotations

from datetime import UTC, datetime

from invoker.feed import FeedItem, Watch
from invoker.result import Reason, RunStatusDocument, State
from invoker.views import RunRow

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def status(run_id: str, state: State) -> RunStatusDocument:
    return RunStatusDocument(run_id=run_id, request_id="r", function="f", topic="t", state=state, at=NOW)


def result(sequence: int, run_id: str) -> FeedItem:
    row = RunRow(
        run_id=run_id, request_id="r", function="f", topic="t", state=State.SUCCEEDED, reason=Reason.COMPLETED,
        attempts=1, queued_at=NOW, started_at=NOW, finished_at=NOW, cursor=f"f{sequence}",
    )  # fmt: skip
    return FeedItem(sequence, "r", "t", row=row)


async def taken(watch: Watch) -> list[FeedItem | RunStatusDocument]:
    return [await watch.next_of_all() for _ in range(watch.waiting)]


async def test_news_that_a_result_has_overtaken_are_left_out() -> None:
    watch = Watch()
    before, late, other = (status(run_id, State.RUNNING) for run_id in ("one", "one", "two"))
    watch.hint(before)
    watch.give(result(1, "one"))
    watch.hint(late)
    watch.hint(other)
    assert await taken(watch) == [before, result(1, "one"), other]


async def test_news_of_an_end_are_told_after_it() -> None:
    watch = Watch()
    watch.give(result(1, "one"))
    watch.hint(status("one", State.SUCCEEDED))
    assert await taken(watch) == [result(1, "one"), status("one", State.SUCCEEDED)]
