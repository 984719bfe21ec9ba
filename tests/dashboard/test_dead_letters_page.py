"""Dead letters on pages: the list, one of them, sending one or many again; and the words for their reasons."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from invoker import wire
from invoker.errors import InvokerError
from invoker.gateway.dashboard import dead_letter_view as view
from invoker.gateway.dashboard.dead_letters import PAGE_LETTERS
from invoker.views import DeadLetter
from tests.conftest import eventually
from tests.custody.workload import function
from tests.dashboard.visitor import Visitor, visiting
from tests.gateway.access_world import add_key
from tests.gateway.reading import world_of
from tests.gateway.stack import FILE, INPUT, Stack, running_gateway, running_stack

HOSTILE = "<script>alert(1)</script>"
SECRET = {"type": "object", "properties": {"pin": {"type": "string", "format": "password"}, "name": {"type": "string"}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    secret = function("secret", "secret.*", INPUT, input={"as": "file", "schema": SECRET}, output={"from": "stdout"})
    functions = [function("echo", "echo.>", INPUT, **FILE), secret]
    async with running_stack(tmp_path_factory.mktemp("stack"), functions=functions) as running:
        yield running


async def bury(stack: Stack, topic: str, data: bytes, content_type: str = "text/plain", **headers: str) -> DeadLetter:
    """A dead letter of an event that asks for a reply where none may be sent."""
    own = {"Invoker-Reply-To": "forbidden.subject", "Content-Type": content_type} | headers
    await world_of(stack.client).client.jetstream().publish(f"events.{topic}", data, headers=own)

    async def there() -> DeadLetter | None:
        found = await stack.client.dead(limit=1)
        return found[0] if found and found[0].topic == topic and found[0].body.size_bytes == len(data) else None

    return await eventually(there, what="the dead letter")


async def output_of(stack: Stack, location: str) -> bytes:
    """What came of the request that a form led to."""
    view_of = await stack.client.result(location.split("/")[3].partition("?")[0], wait=60)
    return await stack.client.output(view_of.results[0])


async def test_the_list_leads_from_page_to_page(stack: Stack, visitor: Visitor) -> None:
    jetstream = world_of(stack.client).client.jetstream()
    for number in range(60):
        await jetstream.publish(f"events.echo.page.{number}", b"x", headers={"Invoker-Hops": "99"})

    async def all_there() -> list[DeadLetter] | None:
        found = await stack.client.dead(limit=60)
        return found if len(found) == 60 else None

    letters = await eventually(all_there, what="the dead letters")
    page = await visitor.page("/ui/dead-letters")
    assert [row[3] for row in page.rows] == [one.topic for one in letters[:PAGE_LETTERS]]
    assert page.rows[0][2].startswith("Its chain has run in a circle")
    older = await visitor.page(page.link("Older"))
    assert [row[3] for row in older.rows] == [one.topic for one in letters[PAGE_LETTERS:]]
    assert older.link("Newest") == "/ui/dead-letters"
    assert not older.has("a", text="Older")
    assert not (await visitor.page("/ui/dead-letters?before=1")).rows
    assert (await visitor.get("/ui/dead-letters?before=x")).status == 400


async def test_the_list_is_narrowed_by_reason_and_topic(stack: Stack, visitor: Visitor) -> None:
    await bury(stack, "echo.narrow.one", b"x")
    hops = {"Invoker-Hops": "99", "Invoker-Reply-To": "_INBOX.x"}
    await bury(stack, "echo.narrow.two", b"xy", **hops)
    form = (await visitor.page("/ui/dead-letters")).form("Filter")
    assert [row[3] for row in (await visitor.send(form, topic="*.narrow.*")).page.rows] == [
        "echo.narrow.two",
        "echo.narrow.one",
    ]
    assert [row[3] for row in (await visitor.send(form, reason="hop-limit", topic="echo.narrow.>")).page.rows] == [
        "echo.narrow.two"
    ]
    assert (await visitor.send(form, topic="echo.none")).page.one(class_="none").text.startswith("No dead letter fits")
    wrong = (await visitor.send(form, topic="a b")).page
    assert wrong.has(role="alert")
    assert wrong.form("Filter").value("topic") == "a b"


async def test_one_letter_says_why_it_is_there_and_where_it_came_from(stack: Stack, visitor: Visitor) -> None:
    letter = await bury(stack, "echo.one", HOSTILE.encode(), **{"X-Hostile": HOSTILE})
    page = await visitor.page((await visitor.page("/ui/dead-letters")).link(letter.id[:8]))
    assert "It asks for a reply on a subject that is not allowed" in page.text
    assert "INVOKER_REPLY_SUBJECTS" in page.text
    for said in (letter.message, letter.subject, letter.stream, f"message {letter.sequence}", letter.id, HOSTILE):
        assert said in page.text
    assert not page.has("script", text="alert")
    assert page.one("pre", aria_label="payload as text").raw_text.strip() == HOSTILE
    seen = await visitor.get(page.link("Download"))
    assert (seen.status, seen.body) == (200, HOSTILE.encode())
    assert seen.headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in seen.headers["Content-Security-Policy"]
    wrong = (await visitor.get("/ui/dead-letters?topic=a..b")).page
    assert wrong.one("p", role="alert").text.startswith("Topic pattern 'a..b'")
    assert wrong.one("input", id="topic")["aria-invalid"] == "true"
    assert "Mend the filter" in wrong.one("section", id="letters").text
    assert (await visitor.get("/ui/dead-letters/nope")).status == 404
    assert (await visitor.get("/ui/dead-letters/nope/body")).status == 404


async def test_a_letter_is_sent_again_as_it_is_once(stack: Stack, visitor: Visitor) -> None:
    letter = await bury(stack, "echo.again", b"\xff\x00bytes")
    page = await visitor.page(f"/ui/dead-letters/{letter.id}")
    question = await visitor.page(page.link("Send it again…"))
    assert "no text" in question.text
    form = question.form("Send it again")
    sent = [await visitor.send(form) for _ in range(2)]
    other = (await visitor.page(page.link("Send it again…"))).form("Send it again")
    sent.append(await visitor.send(other))
    assert {(one.status, one.location) for one in sent} == {(303, sent[0].location)}
    assert sent[0].location.endswith("?done=redriven")
    assert await output_of(stack, sent[0].location) == b"\xff\x00bytes"
    page = await visitor.page(f"/ui/dead-letters/{letter.id}")
    assert page.one(id="again").text.startswith("It was sent again as request")
    assert page.one(id="again").links[0][1] == sent[0].location.partition("?")[0]


async def test_a_letter_is_sent_again_with_other_text(stack: Stack, visitor: Visitor) -> None:
    letter = await bury(stack, "echo.edit", b"\nold", "text/x")
    form = (await visitor.page(f"/ui/dead-letters/{letter.id}/redrive")).form("Send it again")
    assert form.value("data") == "\nold"
    same = await visitor.send(form, data="\r\nold")
    assert same.location.split("/")[3] == f"{wire.digest_id('redrive', letter.id)}?done=redriven"
    assert await output_of(stack, same.location) == b"\nold"
    sent = [await visitor.send(form, data="new\r\nlines") for _ in range(2)]
    assert {(one.status, one.location) for one in sent} == {(303, sent[0].location)}
    assert await output_of(stack, sent[0].location) == b"new\nlines"
    view_of = await stack.client.result(sent[0].location.split("/")[3].partition("?")[0])
    assert view_of.record is not None
    assert (view_of.record.replay_of, view_of.record.body.content_type) == (letter.request_id, "text/x")
    assert (await visitor.send(form, data="else")).status == 422
    assert (await visitor.send(form, once=None)).status == 400


async def test_many_are_sent_again_with_the_count_first(stack: Stack, visitor: Visitor) -> None:
    letters = [await bury(stack, f"echo.many.{number}", b"x") for number in range(3)]
    ids = [one.id for one in letters]
    page = await visitor.page("/ui/dead-letters?topic=echo.many.*")
    assert len(page.all("input", name="id", form="pick")) == 3
    question = await visitor.send(page.form("Send again…"), id=[*ids, "nope", ids[0]])
    assert question.page.one("h1").text == "Send 3 events again?"
    assert "1 that are not there any more" in question.page.text
    form = question.page.form("Send 3 events again")
    first, second = [(await visitor.send(form)).page for _ in range(2)]
    assert first.rows == second.rows
    assert len(first.rows) == 3
    for row, letter in zip(first.rows, letters, strict=True):
        assert row[:2] == [letter.id[:8], letter.topic]
        request_id = wire.digest_id("redrive", letter.id)
        assert first.has("a", title=f"request {request_id}")
        assert (await stack.client.result(request_id, wait=60)).succeeded
    mixed = (await visitor.send(form, id=[ids[0], "nope"])).page
    assert [one.text for one in mixed.all("h2")] == ["Not sent", "Sent"]
    assert "There is nothing to send again." in (await visitor.page("/ui/dead-letters/redrive")).text
    assert (await visitor.send(form, once=None)).status == 400


async def test_who_may_not_sees_no_button_no_secret_and_nobody_elses_letter(stack: Stack, tmp_path: Path) -> None:
    letter = await bury(
        stack, "secret.one", json.dumps({"pin": "pin-4711", "name": "seen"}).encode(), "application/json"
    )
    foreign = await bury(stack, "echo.foreign", b"x")
    file = tmp_path / "keys.json"
    reads, one = add_key(file, "reads", "read secret.*"), add_key(file, "one", "operate > secret")
    async with (
        running_gateway(stack.server.url, gateway_keys=file, gateway_anonymous=()) as up,
        visiting(up.url, reads) as reader,
        visiting(up.url, one) as operator,
    ):

        async def known() -> bool:
            return up.gateway.catalog.is_known

        await eventually(known, what="the catalog in the other gateway")
        page = await reader.page("/ui/dead-letters")
        assert [row[2] for row in page.rows] == ["secret.one"]
        assert not page.has("input", form="pick")
        page = await reader.page(f"/ui/dead-letters/{letter.id}")
        assert "seen" in page.text
        assert "pin-4711" not in page.text
        assert "Send it again…" not in [words for words, _ in page.links]
        assert (await reader.get(f"/ui/dead-letters/{letter.id}/body")).status == 403
        for path in (f"{letter.id}/redrive", "redrive"):
            assert (await reader.ask("POST", f"/ui/dead-letters/{path}", "once=a1")).status == 403
        assert (await reader.get(f"/ui/dead-letters/{letter.id}/redrive")).status == 403
        for path in ("", "/body", "/redrive"):
            assert (await reader.get(f"/ui/dead-letters/{foreign.id}{path}")).status == 404
        # It is not known what a topic will run: who may operate one function only may send nothing on it.
        assert "pin-4711" in (await operator.page(f"/ui/dead-letters/{letter.id}")).text
        assert (await operator.ask("POST", f"/ui/dead-letters/{letter.id}/redrive", "once=a1")).status == 403
        done = (await operator.ask("POST", "/ui/dead-letters/redrive", f"once=a1&id={letter.id}")).page
        assert [each.text for each in done.all("h2")] == ["Not sent"]
    assert not await exists(stack, wire.digest_id("redrive", letter.id))


async def exists(stack: Stack, request_id: str) -> bool:
    try:
        await stack.client.result(request_id)
    except InvokerError:
        return False
    return True


def test_every_reason_that_is_stored_has_words() -> None:
    stored = {
        "no-subscription", "idempotency-mismatch", "invalid-topic", "invalid-reply-subject", "invalid-request-id",
        "payload-too-large", "hop-limit", "claim-check", "internal",
    }  # fmt: skip
    assert set(view.REASONS) == stored
    assert view.advice_of("anything else") is view.UNKNOWN


def test_ids_of_a_form_are_bounded_and_each_there_once() -> None:
    assert view.chosen_ids(["a", "a", "", "b*", "c.d", "é", "x" * 65, "b"]) == ["a", "b"]
    assert len(view.chosen_ids([f"id{number}" for number in range(1000)])) == view.MAX_LETTERS
