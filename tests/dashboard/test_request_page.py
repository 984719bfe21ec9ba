"""One request over HTTP: its facts, its chain as graph, list and table, why nothing matched, what may be changed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from invoker import wire
from invoker.gateway.dashboard.forms import new_key
from invoker.request import Content, RequestRecord
from invoker.result import State
from invoker.views import RequestView
from tests.conftest import eventually
from tests.dashboard.html_page import Element
from tests.dashboard.visitor import Visitor, visiting
from tests.gateway.access_world import add_key
from tests.gateway.reading import world_of
from tests.gateway.stack import Stack, running_gateway


async def done(stack: Stack, topic: str, data: bytes = b"x", **options: object) -> RequestView:
    """A request on that topic, once all of its runs have finished."""
    receipt = await stack.client.publish(topic, data, **options)  # type: ignore[arg-type]  # options of publish
    return await stack.client.result(receipt.request_id, wait=60)


async def chained(stack: Stack) -> tuple[RequestView, RequestView]:
    """A chain of two stages, once it has ended."""
    receipt = await stack.client.publish("chain.begin", b"hello")
    first, second = (await stack.client.chain(receipt.request_id, wait=60)).views
    return first, second


async def accepted(stack: Stack, request_id: str, root: str, parent: str | None = None) -> None:
    """A request with a run of a function that nobody runs."""
    now = datetime.now(UTC)
    record = RequestRecord(
        request_id=request_id, topic="ghosts.topic", received_at=now, accepted_at=now, sha256=wire.sha256_hex(b""),
        catalog="c", functions=("nobody",), root_request_id=root, parent_run_id=parent, body=Content(),
    )  # fmt: skip
    assert await world_of(stack.client).results.put_record(record)


def facts(page: Element, section: str) -> dict[str, str]:
    part = page.one("section", id=section)
    return {name.text: text.text for name, text in zip(part.all("dt"), part.all("dd"), strict=True)}


def nodes(page: Element) -> list[tuple[str, str, str]]:
    """What the drawing's nodes say, their state and where they lead."""
    found = page.one("section", id="request-chain").all("a", class_="node")
    return [(one.one("title").text, one["class"].split()[2], one["href"]) for one in found]


async def test_a_chain_is_drawn_listed_and_counted(stack: Stack, visitor: Visitor) -> None:
    first, second = await chained(stack)
    page = await visitor.page(f"/ui/requests/{first.request_id}")
    runs = [first.runs[0], second.runs[0]]
    assert nodes(page) == [
        ("event on chain.begin", "event", f"/ui/requests/{first.request_id}"),
        ("first: succeeded (completed), on chain.begin", "succeeded", f"/ui/runs/{runs[0].run_id}"),
        ("second: succeeded (completed), on chain.end", "succeeded", f"/ui/runs/{runs[1].run_id}"),
    ]
    rows = page.one("section", id="request-stages").rows
    assert [row[:4] for row in rows] == [
        ["1", "first", "chain.begin", "succeeded"], ["2", "second", "chain.end from first", "succeeded"],
    ]  # fmt: skip
    assert [row[7:] for row in rows] == [["5 B", "5 B"], ["5 B", "12 B"]]
    listed = page.one("ul", class_="branches").text
    assert listed.index("chain.begin") < listed.index("first") < listed.index("chain.end") < listed.index("second")
    assert "Settled" in facts(page, "request-head")["Chain"]
    assert "2 runs" in facts(page, "request-head")["Chain"]
    assert page.one("body")["data-stream"] == f"/ui/live?chain={first.request_id}"


async def test_a_later_stage_shows_its_whole_chain_and_where_it_came_from(stack: Stack, visitor: Visitor) -> None:
    first, second = await chained(stack)
    page = await visitor.page(f"/ui/requests/{second.request_id}")
    assert [label.partition(":")[0] for label, _, _ in nodes(page)] == ["event on chain.begin", "first", "second"]
    asked = page.one("section", id="request-chain").all("a", class_="asked")
    assert [one.one("title").text.partition(":")[0] for one in asked] == ["second"]
    head = facts(page, "request-head")
    assert head["Chain began with"].endswith("1 stage before")
    assert page.one("section", id="request-head").has("a", href=f"/ui/runs/{first.runs[0].run_id}")


async def test_what_was_published_is_told_whole_and_as_text(stack: Stack, visitor: Visitor) -> None:
    hostile = "<script>alert(1)</script>"
    view = await done(
        stack, "orders.told", b'{"number": 1, "items": []}', content_type="application/json",
        headers={"X-Who": hostile}, params={"note": hostile, "level": "3"}, request_id="not a plain id",
        reply_to="replies.orders",
    )  # fmt: skip
    seen = await visitor.get(f"/ui/requests/{view.request_id}")
    assert "<script>alert" not in seen.text
    head = facts(seen.page, "request-head")
    assert head["Request"] == f"{view.request_id} sent as not a plain id"
    assert head["Replies go to"] == "replies.orders"
    assert head["Accepted"].endswith("later, for 1 function")
    event = facts(seen.page, "request-input")
    assert (event["note"], event["level"], event["X-Who"]) == (hostile, "3", hostile)
    assert "number" in seen.page.one("section", id="request-input").text
    again = await done(stack, "echo.again")
    replayed = await stack.client.replay(again.request_id)
    await stack.client.result(replayed.request_id, wait=60)
    head = facts(await visitor.page(f"/ui/requests/{replayed.request_id}"), "request-head")
    assert head["Replay of"].strip("…") in again.request_id


async def test_a_request_that_nothing_matched_is_explained(stack: Stack, visitor: Visitor) -> None:
    view = await done(stack, "echoo.there")
    page = await visitor.page(f"/ui/requests/{view.request_id}")
    why = page.one("section", id="request-why")
    assert "echo.>" in why.text
    assert "token 1 is 'echoo', wanted 'echo'" in why.text
    assert nodes(page)[1][:2] == ("echoo.there: nothing matched", "no-match")
    assert "There are no runs." in page.one("section", id="request-stages").text
    assert not (await visitor.page(f"/ui/requests/{(await done(stack, 'echo.x')).request_id}")).has(id="request-why")


async def test_ids_that_lead_nowhere_are_explained(stack: Stack, visitor: Visitor) -> None:
    seen = await visitor.get("/ui/requests/never-was-there")
    assert seen.status == 404
    assert "mistyped" in seen.page.text
    seen = await visitor.get(f"/ui/requests/{wire.timed_digest_id(datetime(2020, 1, 1, tzinfo=UTC), 'long ago')}")
    assert seen.status == 410
    assert "kept for a time" in seen.page.text
    await stack.client._client.jetstream().publish(
        "events.echo.dead", b"x", headers={"Nats-Msg-Id": "became-dead", "Invoker-Reply-To": "$JS.API.STREAM.LIST"}
    )

    async def dead() -> bool:
        return any(letter.request_id == "became-dead" for letter in await stack.client.dead())

    await eventually(dead, what="the dead letter")
    seen = await visitor.get("/ui/requests/became-dead")
    assert seen.status == 404
    letter = next(one for one in await stack.client.dead() if one.request_id == "became-dead")
    assert seen.page.link("open the dead letter") == f"/ui/dead-letters/{letter.id}"


async def test_unfinished_runs_are_cancelled_after_a_question(stack: Stack, visitor: Visitor) -> None:
    receipt = await stack.client.publish("gate.page", b"x")
    address = f"/ui/requests/{receipt.request_id}"

    async def offered() -> bool:
        page = await visitor.page(address)
        return any(words == "Cancel…" for words, _ in page.links)

    await eventually(offered, what="the button of a request that was accepted")
    page = await visitor.page(address)
    assert "1 unfinished. It goes on." in facts(page, "request-head")["Chain"]
    question = await visitor.page(page.link("Cancel…"))
    assert question.one("h1").text == "Cancel 1 run of this request?"
    for _ in range(2):
        sent = await visitor.send(question.form("Cancel what is unfinished"), message="not needed")
        assert (sent.status, sent.location) == (303, f"{address}?done=cancelled")
    run = (await stack.client.result(receipt.request_id, wait=60)).runs[0]
    assert run.result is not None
    assert (run.state, run.result.message) == (State.CANCELLED, "not needed")
    page = await visitor.page(f"{address}?done=cancelled")
    assert "Cancelled." in page.one("div", id="notices").text
    assert not any(words == "Cancel…" for words, _ in page.links)


async def test_a_replay_is_made_once_whole_or_for_one_function(stack: Stack, visitor: Visitor) -> None:
    view = await done(stack, "pair.replayed", b"again")
    question = await visitor.page((await visitor.page(f"/ui/requests/{view.request_id}")).link("Replay…"))
    form = question.form("Replay the request")
    first, second = await asyncio.gather(visitor.send(form), visitor.send(form))
    assert first.status == second.status == 303
    assert first.location == second.location
    made = first.location.partition("?")[0].rpartition("/")[2]
    assert [run.function for run in (await stack.client.result(made, wait=60)).runs] == ["pair-a", "pair-b"]
    page = await visitor.page(first.location)
    assert "Replayed, as a new request" in page.one("div", id="notices").text
    other = await visitor.page(f"/ui/requests/{view.request_id}/replay")
    alone = await visitor.send(other.form("Replay the request"), function="pair-b")
    made = alone.location.partition("?")[0].rpartition("/")[2]
    assert [run.function for run in (await stack.client.result(made, wait=60)).runs] == ["pair-b"]
    edited = await visitor.send(other.form("Replay the request"), data="quite another", once=new_key())
    made = edited.location.partition("?")[0].rpartition("/")[2]
    assert (await stack.client.result(made, wait=60)).results[0].output.inline_bytes() == b"a quite another"
    nobody = await visitor.send(other.form("Replay the request"), function="echo")
    assert nobody.status == 404


async def test_hidden_parts_of_a_chain_stay_hidden(stack: Stack, tmp_path: Path) -> None:
    first, second = await chained(stack)
    pair = await done(stack, "pair.hidden")
    file = tmp_path / "keys.json"
    late, half = add_key(file, "late", "read chain.end"), add_key(file, "half", "operate pair.* pair-a")
    early = add_key(file, "early", "read chain.begin")
    async with running_gateway(stack.server.url, gateway_keys=file, gateway_anonymous=()) as guarded:
        async with visiting(guarded.url, late) as reader:
            page = await reader.page(f"/ui/requests/{second.request_id}")
            assert [label.partition(":")[0] for label, _, _ in nodes(page)] == ["event on chain.end", "second"]
            assert "is not kept any more, or not yours to see" in page.one("section", id="request-chain").text
            assert "first" not in page.one("section", id="request-stages").text
            assert (await reader.get(f"/ui/requests/{first.request_id}")).status == 404
        async with visiting(guarded.url, early) as reader:
            page = await reader.page(f"/ui/requests/{first.request_id}")
            assert [label.partition(":")[0] for label, _, _ in nodes(page)] == ["event on chain.begin", "first"]
            assert not any(words in ("Cancel…", "Replay…") for words, _ in page.links)
            for what in ("cancel", "replay"):
                address = f"/ui/requests/{first.request_id}/{what}"
                assert (await reader.get(address)).status == 403
                assert (await reader.ask("POST", address, "once=abc")).status == 403
        async with visiting(guarded.url, half) as operator:
            seen = await operator.get(f"/ui/requests/{pair.request_id}")
            assert "pair-b" not in seen.text
            assert "for 1 function<" in seen.text, "how many others there are is not told"
            assert not any(words == "Replay…" for words, _ in seen.page.links), "all of it is not his to replay"
            address = f"/ui/requests/{pair.request_id}/replay"
            assert (await operator.ask("POST", address, "once=abc")).status == 403
            assert (await operator.ask("POST", address, "once=abc&function=pair-a")).status == 303


async def test_a_wide_chain_is_bounded_and_says_so(stack: Stack, visitor: Visitor) -> None:
    await accepted(stack, "wide", "wide")
    parent = wire.run_id_of("wide", "nobody")
    for position in range(230):
        await accepted(stack, wire.chained_id(parent, "published", position), "wide", parent)
    page = await visitor.page("/ui/requests/wide")
    assert len(nodes(page)) == 1 + 200
    assert "more requests than are read for this page" in page.one("section", id="request-chain").text
    assert "It goes on." in facts(page, "request-head")["Chain"]


async def test_events_of_every_kind_are_followed(stack: Stack, visitor: Visitor) -> None:
    await accepted(stack, "kinds", "kinds")
    parent = wire.run_id_of("kinds", "nobody")
    await world_of(stack.client).seal("kinds", "nobody", topic="ghosts.topic")
    caused = [("onSuccess", 0), ("onFailure", 0), *(("published", position) for position in range(10))]
    for kind, position in caused:
        await accepted(stack, wire.chained_id(parent, kind, position), "kinds", parent)
    page = await visitor.page("/ui/requests/kinds")
    drawn = {address.rpartition("/")[2] for _, _, address in nodes(page)[2:]}
    assert drawn == {wire.run_id_of(wire.chained_id(parent, *one), "nobody") for one in caused}
    assert "13 runs, 12 unfinished. It goes on." in facts(page, "request-head")["Chain"]


async def test_a_page_of_a_chain_hears_of_its_later_stages(stack: Stack, visitor: Visitor) -> None:
    await accepted(stack, "heard", "heard")
    timeout = aiohttp.ClientTimeout(total=60)
    async with visitor.http.get("/ui/live?chain=heard", timeout=timeout) as answer:
        await answer.content.readuntil(b"event: change")  # what is there when it opens
        await accepted(stack, "heard-later", "heard", wire.run_id_of("heard", "nobody"))
        await answer.content.readuntil(b"event: change")
        await world_of(stack.client).seal("heard-later", "nobody", topic="ghosts.later")
        await answer.content.readuntil(b"event: change")
