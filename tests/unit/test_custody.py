"""The table of held runs: one owner per run, levels that are not missed, slots that are given back once."""

from __future__ import annotations

import asyncio

from invoker.request import RunTicket
from invoker.result import Reason, State
from trigger.custody import Custody, HeldRun, Once, Slots
from trigger.engine import Phase, RunEnd, RunStatus

ENDED = RunStatus("run", Phase.ENDED, end=RunEnd(State.SUCCEEDED, Reason.COMPLETED))
UNKNOWN = RunStatus("run", Phase.ENDED)


def ticket(run_id: str = "run", function: str = "f") -> RunTicket:
    return RunTicket(run_id=run_id, request_id="r", function=function)


def custody() -> Custody:
    return Custody(Slots(4))


def taken(table: Custody, ack_subject: str = "ack.1") -> HeldRun:
    held = table.take(ticket(), ack_subject, 1)
    assert held is not None
    return held


def test_a_second_delivery_replaces_the_ack_subject_only() -> None:
    table = custody()
    held = taken(table)
    assert table.take(ticket(), "ack.2", 1) is None
    assert held.ack_subject == "ack.2"
    assert table.all() == [held]
    assert table.get("run") is held


def test_dropped_it_can_be_taken_again() -> None:
    table = custody()
    held = taken(table)
    table.drop(held)
    table.drop(held)
    assert table.get("run") is None
    assert taken(table) is not held


async def test_dropping_gives_the_slot_back_once() -> None:
    table = custody()
    held = taken(table)
    await table.slots.acquire("f")
    held.has_slot = True
    assert table.slots.free == 3
    table.drop(held)
    table.drop(held)
    assert table.slots.free == 4


def test_an_earlier_holder_does_not_drop_a_later_one() -> None:
    """Given back, delivered again, and only then ended by a task that had the first one in hand."""
    table = custody()
    first = taken(table)
    table.drop(first)
    second = taken(table, "ack.2")
    table.drop(first)
    assert table.get("run") is second


def test_the_engines_levels_reach_the_run_that_is_held() -> None:
    table = custody()
    held = taken(table)
    running = RunStatus("run", Phase.RUNNING)
    assert table.observe(running) is held
    assert (held.status, held.ended.is_set()) == (running, False)
    assert table.observe(ENDED) is held
    assert (held.status, held.ended.is_set()) == (ENDED, True)


def test_an_end_that_comes_while_nobody_holds_the_run_is_kept_for_who_takes_it() -> None:
    table = custody()
    assert table.observe(RunStatus("run", Phase.RUNNING)) is None
    assert table.ended_unheld() == []
    assert table.observe(ENDED) is None
    assert table.ended_unheld() == ["run"]
    held = taken(table)
    assert held.ended.is_set()
    assert held.status == ENDED
    assert table.ended_unheld() == []


def test_an_end_of_a_run_that_the_engine_does_not_know_says_nothing_to_who_takes_it() -> None:
    """Else a run that was never started would be taken for one that has ended."""
    table = custody()
    table.observe(UNKNOWN)
    assert not taken(table).ended.is_set()


def test_a_kept_end_is_handed_out_once() -> None:
    table = custody()
    table.observe(ENDED)
    assert table.take_end("run") == ENDED
    assert table.take_end("run") is None


def test_a_run_is_expired_from_the_queue_only_when_nobody_holds_it() -> None:
    table = custody()
    held = table.take_expired(ticket(), 7)
    assert held is not None
    assert (held.ack_subject, held.sequence, held.from_queue) == (None, 7, True)
    assert table.take_expired(ticket(), 7) is None
    assert table.take(ticket(), "ack.1", 7) is None
    assert held.ack_subject == "ack.1"
    table.drop(held)
    assert not taken(table).from_queue


def test_counting_per_function() -> None:
    table = custody()
    for number in range(3):
        table.take(ticket(f"run-{number}", "f" if number else "g"), "ack", 1)
    assert (table.count("f"), table.count("g"), table.count("h")) == (2, 1, 0)


async def test_once_wakes_everybody_who_waits_and_holds_up_nobody_later() -> None:
    moment = Once()
    waiting = [asyncio.create_task(moment.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not moment.is_set()
    assert not any(task.done() for task in waiting)
    moment.set()
    moment.set()
    await asyncio.gather(*waiting, moment.wait())
    assert moment.is_set()
