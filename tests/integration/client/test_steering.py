"""Steering runs of a real controller: cancelling, pausing, and following their logs."""

from __future__ import annotations

import asyncio

import pytest

from invoker import wire
from invoker.errors import (
    UnknownIdError,
    WaitExpiredError,
)
from invoker.result import Reason, State
from invoker.views import Chain, RequestState, RunView
from tests.conftest import eventually
from tests.integration.client.conftest import SLEEP, UPPER, Started, reaches

pytestmark = pytest.mark.integration


async def test_cancelling_ends_a_running_and_a_queued_run(started: Started) -> None:
    async with started(sleep=SLEEP + "\nconcurrency: 1") as client:
        first = await client.publish("sleep")
        await reaches(client, first.request_id, RequestState.RUNNING)
        second = await client.publish("sleep")

        async def accepted() -> tuple[RunView, ...]:
            return (await client.result(second.request_id)).runs

        (run,) = await eventually(accepted, what="the second one's run")
        assert run.state is State.QUEUED
        done = await client.cancel(run.run_id)
        assert done.cancelled == (run.run_id,)
        done = await client.cancel(first.request_id)
        assert len(done.cancelled) == 1
        for receipt in (first, second):
            (result,) = (await client.result(receipt.request_id, wait=60)).results
            assert (result.state, result.reason) == (State.CANCELLED, Reason.CANCELLED)
        again = await client.cancel(first.request_id)
        assert (len(again.cancelled), len(again.already_finished)) == (0, 1)
        with pytest.raises(UnknownIdError):
            await client.cancel("never-seen")


async def test_cancelling_a_chain_ends_every_stage_and_begins_no_further_one(started: Started) -> None:
    first = UPPER.replace("topic: words", "topic: one") + "onSuccess: {publish: two}\n"
    second = SLEEP.replace("topic: sleep", "topic: two") + "\nonSuccess: {publish: three}"
    third = UPPER.replace("topic: words", "topic: three")
    aside = SLEEP.replace("topic: sleep", "topic: two")
    async with started(first=first, second=second, aside=aside, third=third) as client:
        receipt = await client.publish("one", "x")
        other = await client.publish("two", "of another chain")

        async def stage_two() -> Chain | None:
            chain = await client.chain(receipt.request_id)
            return chain if [run.state for run in chain.runs].count(State.RUNNING) == 2 else None

        chain = await eventually(stage_two, what="both functions of the second stage")
        done = await client.cancel_chain(receipt.request_id, message="wrong file")
        held = {run.run_id for run in chain.runs if not run.finished}
        assert set(done.cancelled) == held
        assert done.already_finished == (wire.run_id_of(receipt.request_id, "first"),)
        ended = await client.chain(receipt.request_id, wait=60)
        assert sorted((run.function, str(run.state)) for run in ended.runs) == [
            ("aside", "cancelled"), ("first", "succeeded"), ("second", "cancelled"),
        ]  # fmt: skip
        assert {run.result.message for run in ended.runs if run.result and run.run_id in held} == {"wrong file"}
        assert not (await client.result(other.request_id)).complete, "another chain goes on"
        again = await client.cancel_chain(next(iter(held)))
        assert (again.cancelled, len(again.already_finished)) == ((), 3)
        await client.cancel(other.request_id)


async def test_a_chain_may_be_cancelled_at_any_moment(started: Started) -> None:
    """Right after its publish: not accepted yet, between two stages, or in the last one."""
    first = UPPER.replace("topic: words", "topic: one") + "onSuccess: {publish: two}\n"
    second = UPPER.replace("topic: words", "topic: two") + "onSuccess: {publish: sleep}\n"
    async with started(first=first, second=second, sleep=SLEEP) as client:
        for number in range(6):
            receipt = await client.publish("one", "x")
            await asyncio.sleep(0.02 * number)  # another moment each time, whichever it is
            await client.cancel_chain(receipt.request_id)
            chain = await client.chain(receipt.request_id, wait=60)
            assert all(run.finished for run in chain.runs)
            assert all(run.state is State.CANCELLED for run in chain.runs if run.function == "sleep")


async def test_a_paused_function_keeps_its_events(started: Started) -> None:
    async with started(upper=UPPER) as client:
        assert await client.pause("upper")
        receipt = await client.publish("words", "x")
        await reaches(client, receipt.request_id, RequestState.QUEUED)
        (info,) = (await client.functions("upper")).functions
        assert info.paused
        with pytest.raises(WaitExpiredError):
            await client.result(receipt.request_id, wait=0.5)
        assert not await client.resume("upper")
        assert (await client.result(receipt.request_id, wait=60)).succeeded
        with pytest.raises(UnknownIdError):
            await client.pause("lower")


async def test_a_log_is_followed_and_then_read_from_the_result(started: Started) -> None:
    async with started(sleep=SLEEP) as client:
        receipt = await client.publish("sleep")
        lines: list[tuple[str | None, str]] = []

        async def follow() -> None:
            async for line in client.logs(receipt.request_id, follow=True):
                lines.append((line.stream, line.text))

        await reaches(client, receipt.request_id, RequestState.RUNNING)
        following = asyncio.create_task(follow())

        async def both() -> bool:
            return len(lines) == 2

        await eventually(both, what="both lines")
        await client.cancel(receipt.request_id)
        await asyncio.wait_for(following, 60)
        assert sorted(lines) == [("stderr", "still here"), ("stdout", "awake")]
        await client.result(receipt.request_id, wait=60)

        async def stored() -> bool:
            return sorted([line.text async for line in client.logs(receipt.request_id)]) == ["awake", "still here"]

        await eventually(stored, what="the stored tail")
