"""Cancelling and replaying many runs: the count first, then what became of each; sent twice it is the same as once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import structlog

from invoker import wire
from invoker.gateway.dashboard.forms import new_key
from invoker.gateway.dashboard.selected_runs import MAX_RUNS, Candidate, Change, Outcome, Outcomes, Plan, replay_key
from invoker.gateway.dashboard.selected_runs import run_ids as read_ids
from invoker.requesting import new_request_id
from invoker.result import State
from invoker.views import RequestView, RunView
from tests.conftest import eventually
from tests.dashboard.html_page import Element
from tests.dashboard.visitor import Seen, Visitor, visiting
from tests.gateway.access_world import add_key
from tests.gateway.stack import Stack, running_gateway


async def done(stack: Stack, topic: str, data: bytes = b"x") -> RunView:
    """The first run of a request on that topic, once all have finished."""
    receipt = await stack.client.publish(topic, data)
    return (await stack.client.result(receipt.request_id, wait=60)).runs[0]


async def waiting(stack: Stack, topic: str, number: int) -> list[RunView]:
    """So many runs of `gate` that do not end by themselves."""
    receipts = [await stack.client.publish(topic, b"x") for _ in range(number)]
    runs: list[RunView] = []
    for receipt in receipts:

        async def listed(request_id: str = receipt.request_id) -> bool:
            # Its message comes behind the request's record, which names the run already.
            accepted = bool((await stack.client.result(request_id)).runs)
            return accepted and bool(await stack.client.runs(request=request_id))

        await eventually(listed, what="the run of an accepted request")
        runs += (await stack.client.result(receipt.request_id)).runs
    return runs


def asked(change: str, *runs: RunView) -> str:
    return f"/ui/selection?do={change}" + "".join(f"&run={run.run_id}" for run in runs)


def facts(page: Element) -> dict[str, str]:
    names, texts = page.all("dt"), page.all("dd")
    return {name.text: text.text for name, text in zip(names, texts, strict=True)}


async def send(visitor: Visitor, page: Element, **changed: Any) -> Seen:
    return await visitor.send(page.form(action="/ui/selection"), **changed)


async def now(stack: Stack, run: RunView) -> RequestView:
    return await stack.client.result(run.request_id, wait=60)


async def test_selected_runs_are_counted_then_cancelled(stack: Stack, visitor: Visitor) -> None:
    going, ended = await waiting(stack, "gate.chosen", 3), await done(stack, "echo.chosen")
    page = await visitor.page(asked("cancel", *going, ended))
    assert page.one("h1").text == "Cancel 3 runs?"
    assert facts(page) == {
        "Looked at": "4 runs", "Left as they are": "1 run: they have finished already, and keep their result",
        "Will be cancelled": "3 runs", "Of the functions": "gate 3",
        "What happens": "Their processes or pods are ended. What they have published goes on",
    }  # fmt: skip
    assert [(await stack.client.run(run.run_id)).finished for run in going] == [False] * 3, "a question changes nothing"
    seen = await send(visitor, page)
    assert (seen.status, seen.page.one("h1").text) == (200, "3 runs cancelled")
    assert sorted(row[0] for row in seen.page.rows) == ["gate"] * 3
    assert [(await now(stack, run)).runs[0].state for run in going] == [State.CANCELLED] * 3
    again = await send(visitor, page)
    assert again.page.one("h1").text == "3 runs cancelled", "sent twice it says the same"
    late = await send(visitor, page, run=[ended.run_id])
    assert late.page.one("h1").text == "0 runs cancelled, 1 not"
    assert "had finished already" in late.page.rows[0][2]


async def test_all_that_fit_the_filters_are_cancelled_and_nothing_else(stack: Stack, visitor: Visitor) -> None:
    fitting, other = await waiting(stack, "gate.fitting", 4), await waiting(stack, "gate.other", 1)
    listed = await visitor.page("/ui/runs?topic=gate.fitting")
    question = await visitor.send(listed.form("Cancel all…"), do="cancel-all")
    assert facts(question.page)["Will be cancelled"] == "4 runs"
    later = await waiting(stack, "gate.fitting", 1)
    seen = await send(visitor, question.page)
    assert seen.page.one("h1").text == "4 runs cancelled"
    assert seen.page.link("Back to the runs") == "/ui/runs?topic=gate.fitting"
    assert [(await now(stack, run)).runs[0].state for run in fitting] == [State.CANCELLED] * 4
    for run in (*other, *later):
        assert not (await stack.client.run(run.run_id)).finished, "what was not counted is not touched"
        stack.open_gate(run.request_id)


async def test_replays_of_one_form_are_made_once_however_often_it_is_sent(stack: Stack, visitor: Visitor) -> None:
    runs = [await done(stack, "pair.again", b"%d" % number) for number in range(3)]
    going = await waiting(stack, "gate.again", 1)
    page = await visitor.page(asked("replay", *runs, *going))
    assert facts(page)["Will be replayed"] == "3 runs"
    assert facts(page)["Left as they are"] == "1 run: they have not finished"
    first, second = await asyncio.gather(send(visitor, page), send(visitor, page))
    assert first.page.one("h1").text == second.page.one("h1").text == "3 runs replayed"
    made = [one["href"].rpartition("/")[2] for one in first.page.all("a") if "/ui/requests/" in one["href"]]
    assert made == [one["href"].rpartition("/")[2] for one in second.page.all("a") if "/ui/requests/" in one["href"]]
    assert len(set(made)) == 3
    for request_id, run in zip(made, runs, strict=True):
        view = await stack.client.result(request_id, wait=60)
        assert [one.function for one in view.runs] == [run.function], "only that function, not all of its topic"
        assert view.record is not None
        assert view.record.replay_of == run.request_id
        assert wire.time_of_id(request_id) is not None, "ids of replays sort by time"
    other = await send(visitor, await visitor.page(asked("replay", *runs)))
    assert not set(made) & {one["href"].rpartition("/")[2] for one in other.page.all("a")}, "another form, other runs"
    stack.open_gate(going[0].request_id)


async def test_what_a_caller_may_not_change_is_counted_and_refused(stack: Stack, tmp_path: Path) -> None:
    own, others = await done(stack, "echo.own"), await done(stack, "echo.theirs")
    hidden, going = await done(stack, "fail.hidden"), (await waiting(stack, "gate.theirs", 1))[0]
    file = tmp_path / "keys.json"
    key, reads = add_key(file, "half", "read echo.>,gate.>", "operate echo.own"), add_key(file, "reads", "read >")
    async with running_gateway(stack.server.url, gateway_keys=file, gateway_anonymous=()) as guarded:
        async with visiting(guarded.url, key) as operator:
            page = await operator.page(asked("replay", own, others, hidden))
            assert facts(page) == {
                "Looked at": "3 runs", "Not known": "1 run: they are not there, or not yours to see",
                "Not yours to change": "1 run: they need another key",
                "Will be replayed": "1 run", "Of the functions": "echo 1",
            } | {"What happens": facts(page)["What happens"]}  # fmt: skip
            ids = [own.run_id, others.run_id, hidden.run_id, "never-was"]
            seen = await send(operator, page, run=ids)
            assert seen.page.one("h1").text == "1 run replayed, 3 not"
            words = {row[1]: row[2] for row in seen.page.rows}
            assert "may not operate" in words[others.run_id[:8]]
            assert words[hidden.run_id[:8]].replace(hidden.run_id, "") == words["never-was"].replace("never-was", "")
            assert "fail" not in [row[0] for row in seen.page.rows]
            refused = await send(operator, page, do="cancel", run=[going.run_id])
            assert "may not operate" in refused.page.rows[0][2]
            assert not (await stack.client.run(going.run_id)).finished
            stack.open_gate(going.request_id)
        async with visiting(guarded.url, reads) as reader:
            assert (await reader.get(asked("cancel", own))).status == 403
            answer = await reader.ask("POST", "/ui/selection", f"do=cancel&once={new_key()}&run={own.run_id}")
            assert answer.status == 403


async def test_a_form_without_sense_is_refused(stack: Stack, visitor: Visitor) -> None:
    run = await done(stack, "echo.sense")
    for body in (f"do=delete&once=abc&run={run.run_id}", f"do=replay&run={run.run_id}"):
        assert (await visitor.ask("POST", "/ui/selection", body)).status == 400, body
    assert (await visitor.get("/ui/selection")).status == 400
    assert (await visitor.get("/ui/selection?do=cancel-all&since=odd")).status == 400
    page = await visitor.page("/ui/selection?do=cancel")
    assert page.one("h1").text == "There is nothing to be done"
    assert not page.has("button", class_="primary")


async def test_the_list_asks_in_a_form_however_many_are_chosen(stack: Stack, visitor: Visitor) -> None:
    """Two hundred ids in an address are more than many a proxy takes."""
    (going,) = await waiting(stack, "gate.long-list", 1)
    page = await visitor.page("/ui/runs?topic=gate.*")
    form = page.form("Cancel…")
    assert (form.method, form.action) == ("post", "/ui/selection?ask=1")
    others = [new_request_id() for _ in range(199)]
    with structlog.testing.capture_logs() as lines:
        seen = await visitor.send(form, do="cancel", run=[going.run_id, *others])
    assert (seen.status, seen.page.one("h1").text) == (200, "Cancel 1 run?")
    assert facts(seen.page)["Looked at"] == "200 runs"
    assert [line["ids"] for line in lines if line.get("component") == "audit"] == [{"asked": "cancel"}]
    assert not (await stack.client.run(going.run_id)).finished, "a question changes nothing"
    assert (await send(visitor, seen.page)).page.one("h1").text == "1 run cancelled"


async def test_the_audit_line_names_every_run(stack: Stack, visitor: Visitor) -> None:
    runs = [await done(stack, "echo.audited") for _ in range(11)]
    page = await visitor.page(asked("replay", *runs))
    with structlog.testing.capture_logs() as lines:
        await send(visitor, page)
    ids = next(line["ids"] for line in lines if line.get("component") == "audit" or "ids" in line)
    assert (ids["do"], ids["done"], ids["refused"]) == ("replay", "11", "0")
    assert f"{ids['runs_1']} {ids['runs_2']}".split() == [run.run_id for run in runs]


def candidates(number: int, **given: Any) -> list[Candidate]:
    return [Candidate(f"r{n}", **({"function": "f", "allowed": True} | given)) for n in range(number)]


def test_a_plan_says_that_more_fit_than_are_taken() -> None:
    plan = Plan(Change.CANCEL, candidates(MAX_RUNS), is_cut=True)
    assert plan.question == "Cancel 1,000 runs?"
    assert dict(plan.facts)["Looked at"].startswith("1,000 runs (more fit")


def test_a_plan_names_the_functions_with_most_runs() -> None:
    chosen = [one for n in range(9) for one in candidates(n + 1, function=f"f{n}", finished=True)]
    assert dict(Plan(Change.REPLAY, chosen).facts)["Of the functions"].startswith("f8 9, f7 8, ")
    assert dict(Plan(Change.REPLAY, chosen).facts)["Of the functions"].endswith("and 3 more")


def test_ids_of_a_form_are_bounded_and_each_once() -> None:
    assert read_ids(["b", "a", "b", "", "a b", "x" * 65, "<i>"]) == ["b", "a"]
    assert len(read_ids(str(number) for number in range(5_000))) == MAX_RUNS


def test_keys_of_replays_differ_by_form_and_run() -> None:
    one, two = new_request_id(), new_request_id()
    keys = {replay_key(once, run) for once in (one, two, "abc") for run in ("r1", "r2")}
    assert len(keys) == 6
    assert replay_key(one, "r1") == replay_key(one, "r1")


def test_outcomes_are_told_by_number() -> None:
    each = [Outcome("a", True, "cancelled"), Outcome("b", False, "no")]
    assert Outcomes(Change.CANCEL, each).title == "1 run cancelled, 1 not"
    assert [one.run_id for one in Outcomes(Change.CANCEL, each).refused] == ["b"]
