"""One run on one page: every way of ending, what waits, payloads of every kind, who sees what, cancel and replay."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from invoker.result import State
from tests.conftest import eventually
from tests.dashboard.run_world import CARD, LARGE_BYTES, PASSWORD, PIN, World, chained, run_world
from tests.dashboard.visitor import Seen

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
EVENT = {"name": "Ada", "password": PASSWORD, "cards": [{"number": CARD}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with run_world(tmp_path_factory.mktemp("runs")) as running:
        yield running


async def replayed(world: World, done: Seen) -> str:
    """The id of the run of the request that a replay made, once it has ended."""
    assert done.status == 303, done.page.text
    request_id = done.location.removeprefix("/ui/requests/").partition("?")[0]
    return str((await world.stack.client.result(request_id, wait=60)).runs[0].run_id)


async def test_a_run_that_succeeded_shows_json_its_version_and_commands(world: World) -> None:
    run_id = await world.run("echo.json", {"name": "Ada", "list": [1, 2.50]}, headers={"X-Shop": "Berlin"})
    page = await world.page(run_id)
    head = page.one("section", id="run-head")
    assert head.one("h1").text == "echo succeeded"
    assert head.one(class_="lead").text == "The function returned."
    assert page.one("section", id="run-time").has("rect", class_="attempt")
    assert "attempt 1" in page.one("svg", class_="timeline")["aria-label"]
    for part in ("run-input", "run-output"):
        tree = page.one("section", id=part)
        assert tree.one("div", class_="json").has("span", class_="number", text="2.5")
        assert 'name: "Ada"' in tree.text
    assert "x-shopberlin" in page.one("section", id="run-input").text.lower()
    spec = page.one("section", id="run-spec").text
    assert "The function's present version is the same." in spec
    assert f"invoker runs replay {run_id}" in spec
    assert "kubectl" not in spec, "it ran on this machine"
    assert page.link("Replay…") == f"/ui/runs/{run_id}/replay"
    assert not page.has("a", text="Cancel…")


async def test_bytes_are_given_as_files_that_no_browser_runs(world: World) -> None:
    run_id = await world.run("echo.html", b"<script>alert(1)</script>", content_type="text/html")
    page = await world.page(run_id)
    assert page.one("section", id="run-input").one("pre").raw_text == "<script>alert(1)</script>"
    assert all(one["src"].startswith("/ui/assets/") for one in page.all("script"))
    for address in (
        page.one("section", id="run-input").link("Download"),
        page.one("section", id="run-output").link("Download"),
    ):
        seen = await world.anyone.get(address)
        assert (seen.status, seen.body) == (200, b"<script>alert(1)</script>")
        assert seen.headers["Content-Disposition"].startswith("attachment")
        assert seen.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in seen.headers["Content-Security-Policy"]


async def test_an_image_is_shown_when_it_is_one(world: World) -> None:
    run_id = await world.run("echo.png", PNG, content_type="image/png")
    page = await world.page(run_id)
    address = page.one("section", id="run-input").one("img")["src"]
    seen = await world.anyone.get(address)
    assert (seen.body, seen.headers["Content-Type"]) == (PNG, "image/png")
    assert seen.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in seen.headers["Content-Security-Policy"]
    no_image = await world.run("echo.png", b"<html>", content_type="image/png")
    page = await world.page(no_image)
    assert not page.one("section", id="run-input").has("img")
    request_id = await world.request_of(no_image)
    assert (await world.anyone.get(f"/ui/requests/{request_id}/input/image")).status == 404
    assert (await world.anyone.get(f"/ui/runs/{no_image}/output/image")).status == 404


async def test_bytes_are_shown_in_hex_and_nothing_as_nothing(world: World) -> None:
    page = await world.page(await world.run("echo.bytes", bytes(range(256)), content_type="application/octet-stream"))
    rows = page.one("section", id="run-input").one("pre", class_="hex").raw_text.splitlines()
    assert rows[1] == "00000010  10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f  ................"
    page = await world.page(await world.run("echo.nothing", b""))
    assert "Empty: no bytes." in page.one("section", id="run-input").text
    assert "Empty: no bytes." in page.one("section", id="run-output").text


async def test_of_a_large_output_the_page_has_the_beginning(world: World) -> None:
    run_id = await world.run("large.one")
    seen = await world.anyone.get(f"/ui/runs/{run_id}")
    output = seen.page.one("section", id="run-output")
    assert len(output.one("pre", class_="hex").raw_text.splitlines()) == 256
    assert len(seen.body) < 200_000
    whole = await world.anyone.get(output.link("Show all as download"))
    assert len(whole.body) == LARGE_BYTES


async def test_a_failed_run_has_its_error_its_traceback_and_what_to_do(world: World) -> None:
    run_id = await world.run("crash.now", {"lines": []})
    page = await world.page(run_id)
    head = page.one("section", id="run-head")
    assert head.one("h1").text == "crash failed error"
    assert "IndexError" in head.one(class_="lead").text
    assert "What to do next" in head.text
    assert "InvokerFunctionFailing" in head.text
    column = page.one("article", aria_label="Attempt 1")
    assert "Exit code1" in column.text
    assert "IndexError: list index out of range" in column.text
    assert "Traceback (most recent call last)" in column.one("pre").raw_text
    assert "There is none: the run did not succeed." in page.one("section", id="run-output").text


async def test_attempts_stand_beside_each_other_with_the_pause_between(world: World) -> None:
    run_id = await world.run("twice.now")
    page = await world.page(run_id)
    assert "(2 of at most 2)" in page.one("section", id="run-attempts").text
    assert "Exit code5" in page.one("article", aria_label="Attempt 1").text
    assert page.one("article", aria_label="Attempt 2").has("code", text="completed")
    kinds = [one["class"] for one in page.one("svg", class_="timeline").all("rect")]
    assert kinds[:5] == ["queued", "starting", "failed", "pause", "attempt"]
    assert "pause before the next attempt" in page.one("ul", class_="timeline-legend").text


async def test_a_running_one_has_progress_and_can_be_cancelled_twice(world: World) -> None:
    run_id = await world.begun("steps.now")

    async def told() -> Any:
        page = await world.page(run_id)
        return page if page.has("progress") else None

    page = await eventually(told, within=90, what="progress")
    head = page.one("section", id="run-head")
    assert head.one("progress")["value"] == "40.0"
    assert head.one("p", class_="said").text == "reading <i>rows</i>"
    assert "is at work" in head.one(class_="lead").text
    assert page.one("section", id="run-time").get("data-redraw") is not None
    assert page.one("svg", class_="timeline").has("rect", class_="active")
    assert not page.has("a", text="Replay…")
    question = await world.anyone.page(page.link("Cancel…"))
    form = question.form("Cancel the run")
    for _ in range(2):
        done = await world.anyone.send(form, message="no longer <wanted>")
        assert (done.status, done.location) == (303, f"/ui/runs/{run_id}?done=cancelled")
    await world.finished(run_id)
    page = await world.anyone.page(done.location)
    assert page.one("section", id="run-head").one("h1").text == "steps cancelled"
    assert "no longer <wanted>" in page.one("section", id="run-head").text.lower()
    assert "Cancelled." in page.one(id="notices").text


async def test_a_queued_run_says_what_it_waits_for(world: World) -> None:
    paused = await world.begun("paused.now")
    await world.stack.knows("paused")
    page = await world.page(paused)
    head = page.one("section", id="run-head")
    assert head.one("h1").text == "paused queued"
    assert "The function is paused" in head.text
    assert "It has not started yet" in page.one("section", id="run-log").text
    assert page.one("svg", class_="timeline").has("rect", class_="queued")
    first = await world.begun("single.one")
    await world.has_state(first, State.RUNNING)
    second = await world.begun("single.two")

    async def said() -> bool:
        await world.stack.gateway.catalog.refresh()
        return "runs 1 run at once at most" in (await world.page(second)).one("section", id="run-head").text

    await eventually(said, within=90, what="what the second one waits for")
    for run_id in (first, second):
        await world.open_gate(run_id)
        await world.finished(run_id)


async def test_a_stage_of_a_chain_leads_to_the_others(world: World) -> None:
    first = await world.run("chain.begin", b"data")
    child = chained(first, "onSuccess")

    async def ended() -> Any:
        page = await world.page(first)
        items = page.all("li", within="section", text="onSuccess")
        return page if items and "finished" in items[0].text else None

    page = await eventually(ended, within=90, what="the chain's second stage on the page of its first")
    assert page.one("ul", class_="children").has("a", href=f"/ui/requests/{child}")
    second = (await world.stack.client.result(child)).runs[0].run_id
    page = await world.page(second)
    head = page.one("section", id="run-head")
    assert head.has("a", href=f"/ui/runs/{first}")
    assert head.has("a", href=f"/ui/requests/{await world.request_of(first)}")
    assert "1 stage before this one" in head.text


async def test_replaying_sends_the_same_event_once_however_often_the_form_comes(world: World) -> None:
    run_id = await world.run("echo.again", {"a": 1})
    form = (await world.anyone.page(f"/ui/runs/{run_id}/replay")).form("Replay the run")
    assert form.value("data") == '{"a":1}'
    first, second = [await world.anyone.send(form) for _ in range(2)]
    assert first.status == 303
    assert first.location == second.location
    assert first.location.endswith("?done=replayed")
    page = await world.page(await replayed(world, first))
    assert page.one("section", id="run-head").one("h1").text == "echo succeeded"
    assert "Replay of" in page.one("section", id="run-head").text
    assert page.one("section", id="run-head").has("a", href=f"/ui/requests/{await world.request_of(run_id)}")


async def test_replaying_with_another_payload_sends_what_was_written(world: World) -> None:
    run_id = await world.run("echo.again", b"\nfirst\n", content_type="text/plain")
    form = (await world.anyone.page(f"/ui/runs/{run_id}/replay")).form("Replay the run")
    assert form.value("data") == "\nfirst\n"
    page = await world.page(await replayed(world, await world.anyone.send(form, data="\r\nfirst\r\n")))
    assert page.one("section", id="run-output").one("pre").raw_text == "\nfirst\n", "as it was"
    form = (await world.anyone.page(f"/ui/runs/{run_id}/replay")).form("Replay the run")
    done = await world.anyone.send(form, data="two\r\nlines")
    page = await world.page(await replayed(world, done))
    assert page.one("section", id="run-output").one("pre").raw_text == "two\nlines"
    assert "text/plain" in page.one("section", id="run-input").text
    keyless = await world.anyone.send(form, once=None)
    assert keyless.status == 400


async def test_what_is_no_text_is_replayed_as_it_is(world: World) -> None:
    run_id = await world.run("echo.again", b"\x00\x01")
    question = await world.anyone.page(f"/ui/runs/{run_id}/replay")
    assert not question.has("textarea")
    assert "no text" in question.text


async def test_who_may_only_read_sees_no_secret_and_gets_no_bytes(world: World) -> None:
    run_id = await world.run("accounts.new", EVENT, function="account", params={"pin": PIN})
    request_id = await world.request_of(run_id)
    seen = await world.viewer.get(f"/ui/runs/{run_id}")
    assert seen.status == 200
    for secret in (PASSWORD, CARD, PIN):
        assert secret not in seen.text
    for part in ("run-input", "run-output"):
        section = seen.page.one("section", id=part)
        assert 'name: "Ada"' in section.text
        assert len(section.all("span", class_="secret")) == 2
        assert not section.has("a", text="Download")
        assert "sha256" not in section.text
    assert not seen.page.has("a", text="Replay…")
    for address in (f"/ui/runs/{run_id}/output", f"/ui/requests/{request_id}/input"):
        for more in ("", "/image"):
            refused = await world.viewer.get(address + more)
            assert refused.status == 403, address
            assert PASSWORD not in refused.text
    full = await world.operator.get(f"/ui/runs/{run_id}")
    for secret in (PASSWORD, CARD, PIN):
        assert secret in full.text
    assert (await world.operator.get(f"/ui/runs/{run_id}/output")).status == 200


async def test_a_run_of_another_function_does_not_show_them_either(world: World) -> None:
    """`audit` declares nothing, but its event is that of `account`."""
    run_id = await world.run("accounts.new", EVENT, function="audit", params={"pin": PIN})
    seen = await world.viewer.get(f"/ui/runs/{run_id}")
    assert PASSWORD not in seen.text
    assert PIN not in seen.text
    seen = await world.auditor.get(f"/ui/runs/{run_id}")
    assert PASSWORD not in seen.text, "he may operate this function, and not the other one"
    question = await world.auditor.page(f"/ui/runs/{run_id}/replay")
    assert PASSWORD not in question.text
    assert "another function declares secret" in question.text
    assert not question.has("textarea")


async def test_words_about_an_event_that_does_not_fit_do_not_quote_a_secret(world: World) -> None:
    run_id = await world.run("accounts.new", {"name": "Ada", "password": "hunter2"}, function="account")
    seen = await world.viewer.get(f"/ui/runs/{run_id}")
    assert seen.page.one("section", id="run-head").one("h1").text == "account failed invalid-input"
    assert "/password" in seen.text
    assert "hunter2" not in seen.text
    assert "hunter2" in (await world.operator.get(f"/ui/runs/{run_id}")).text


async def test_of_a_function_that_is_gone_nobody_knows_what_was_secret(world: World) -> None:
    run_id = await world.run("echo.gone", {"a": "visible"})
    assert "visible" in (await world.viewer.get(f"/ui/runs/{run_id}")).text
    file = world.stack.catalog / "echo" / "function.yaml"
    text = file.read_text()
    file.unlink()
    try:

        async def hidden() -> bool:
            return "visible" not in (await world.viewer.get(f"/ui/runs/{run_id}")).text

        await eventually(hidden, within=90, what="a page without the payload")
        assert "visible" in (await world.operator.get(f"/ui/runs/{run_id}")).text
    finally:
        file.write_text(text)

    async def back() -> bool:
        return "visible" in (await world.viewer.get(f"/ui/runs/{run_id}")).text

    await eventually(back, within=90, what="the function in the catalog again")


@pytest.mark.parametrize("below", ["", "/output", "/output/image", "/log", "/log/live", "/cancel", "/replay"])
async def test_who_may_not_see_a_run_is_told_that_there_is_none(world: World, below: str) -> None:
    run_id = await world.run("echo.hidden", b"hidden")
    seen = await world.stranger.get(f"/ui/runs/{run_id}{below}")
    none = await world.stranger.get(f"/ui/runs/{'a' * 26}{below}")
    assert seen.status == none.status == 404
    assert seen.page.text.replace(run_id, "") == none.page.text.replace("a" * 26, "")
    assert "There is no run yet that you may see." in (await world.stranger.page("/ui/runs")).text


async def test_who_may_only_read_changes_nothing(world: World) -> None:
    run_id = await world.run("echo.kept", b"x")
    for below in ("cancel", "replay"):
        assert (await world.viewer.get(f"/ui/runs/{run_id}/{below}")).status == 403
        sent = await world.viewer.ask("POST", f"/ui/runs/{run_id}/{below}", "once=abc")
        assert sent.status == 403
    form = (await world.operator.page(f"/ui/runs/{run_id}/replay")).form("Replay the run")
    assert (await world.operator.send(form)).status == 303
    foreign = await world.operator.ask("POST", f"/ui/runs/{run_id}/replay", form.sent(), Sec_Fetch_Site="cross-site")
    assert foreign.status == 403


async def test_who_may_not_publish_replays_only_what_was_sent(world: World) -> None:
    run_id = await world.run("accounts.plain", {"name": "Ada"}, function="audit")
    question = await world.keeper.page(f"/ui/runs/{run_id}/replay")
    assert "allowed to publish" in question.text
    form = question.form("Replay the run")
    assert form.value("data") is None
    refused = await world.keeper.send(form, data="mine")
    assert refused.status == 403
    assert (await world.keeper.send(form)).status == 303


async def test_pages_of_runs_are_json_free_of_numbers_that_changed(world: World) -> None:
    data = b'{"exact": 12345678901234567890.10}'
    page = await world.page(await world.run("echo.number", data, content_type="application/json"))
    assert "12345678901234567890.10" in page.one("section", id="run-output").text
    assert json.loads(data)
