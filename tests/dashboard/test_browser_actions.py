"""Everything that can be done on the dashboard, done in a real browser on a real `invoker dev`.

Without scripts and with a double click on every button: each makes one change. With the keyboard alone where people
work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
import pytest_asyncio

from invoker.gateway.dashboard.forms import FORM
from invoker.gateway.dashboard.paths import url_for
from invoker.result import State
from tests.conftest import eventually
from tests.dashboard.browser import Window
from tests.dashboard.conftest import OpenWindow
from tests.dashboard.keyboard import tab_to
from tests.dashboard.routes import covers
from tests.dashboard.shop import Shop, open_shop
from tests.dashboard.world import LIVE, has_state


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path_factory.mktemp("shop")) as running:
        yield running


async def running_report(shop: Shop, topic: str) -> str:
    """The request id of a run that is at work until it is ended."""
    request_id = (await shop.client.publish(topic, {"day": topic})).request_id
    await has_state(shop.client, request_id, {State.RUNNING})
    return request_id


async def double(window: Window, button: str) -> None:
    """Click twice on the button, and wait for where it leads; then send the same form once more, as a browser does
    whose answer was lost. (Of a double click Chromium may send the second one only.)"""
    before = window.page.url
    pressed = window.page.get_by_role("button", name=button, exact=True)
    action, pairs = await pressed.evaluate("(one) => [one.form.action, [...new FormData(one.form)]]")
    await pressed.dblclick()

    async def moved() -> bool:
        return window.page.url != before

    # Not `wait_for_url`: the second press may end the first one's way to the next page, which it takes for a failure.
    await eventually(moved, what="the next page")
    await window.page.wait_for_load_state("domcontentloaded")
    await window.page.wait_for_load_state()
    again = await window.page.request.post(
        action,
        data=urlencode([(name, value) for name, value in pairs]),
        max_redirects=0,
        headers={"Content-Type": FORM, "Sec-Fetch-Site": "same-origin"},
    )
    assert again.status in (200, 303), f"{action}: {again.status}"
    if again.status == 303 and "/requests/" in window.address:
        assert again.headers["location"] == window.address, "sent again it leads to the same request"


async def follow(window: Window, link: str) -> None:
    await window.page.get_by_role("main").get_by_role("link", name=link, exact=True).first.click()
    await window.page.wait_for_load_state()


async def count_of(shop: Shop, function: str) -> int:
    return len(await shop.client.runs(function=function, limit=500))


async def has_runs(shop: Shop, function: str, count: int) -> None:
    """When this returns the function has had so many runs, and nobody has more on the way."""

    async def there() -> bool:
        return await count_of(shop, function) >= count

    await eventually(there, within=90, what=f"{count} runs of {function}")
    # Whatever was sent later than what is there is accepted after it: this one too.
    await shop.client.request("pictures.small", b"", timeout=90)
    assert await count_of(shop, function) == count


@covers(
    "GET /ui/runs/{run_id}/cancel", "POST /ui/runs/{run_id}/cancel",
    "GET /ui/runs/{run_id}/replay", "POST /ui/runs/{run_id}/replay",
)  # fmt: skip
async def test_one_run_is_cancelled_and_replayed(shop: Shop, open_page: OpenWindow) -> None:
    request_id = await running_report(shop, "reports.cancel-me")
    (run,) = (await shop.client.result(request_id)).runs
    window = await open_page(shop.url, url_for("run", run.run_id), java_script_enabled=False)
    await follow(window, "Cancel…")
    assert "Cancel this run of report?" in await window.text()
    await follow(window, "No, go back")
    assert (await shop.client.run(run.run_id)).state in LIVE, "nothing is done by asking"
    await follow(window, "Cancel…")
    await window.page.get_by_label("Why").fill("the wrong day")
    await double(window, "Cancel the run")
    assert window.address == url_for("run", run.run_id) + "?done=cancelled"
    assert "keep their result" in await window.page.get_by_role("status").first.inner_text()
    ended = await shop.client.run(run.run_id)
    assert ended.state is State.CANCELLED
    assert ended.result is not None
    assert "the wrong day" in str(ended.result.message)
    before = await count_of(shop, "take-order")
    await window.open(url_for("run", shop.day.run("order", "take-order"), "replay"))
    await double(window, "Replay the run")
    assert "/ui/requests/" in window.address
    await has_runs(shop, "take-order", before + 1)


@covers(
    "GET /ui/requests/{request_id}/cancel", "POST /ui/requests/{request_id}/cancel",
    "GET /ui/requests/{request_id}/replay", "POST /ui/requests/{request_id}/replay",
)  # fmt: skip
async def test_a_request_is_cancelled_and_replayed(shop: Shop, open_page: OpenWindow) -> None:
    request_id = await running_report(shop, "reports.cancel-request")
    window = await open_page(shop.url, url_for("request", request_id), java_script_enabled=False)
    await follow(window, "Cancel…")
    await double(window, await primary(window))
    assert window.address == url_for("request", request_id) + "?done=cancelled"
    assert (await shop.client.result(request_id)).runs[0].state is State.CANCELLED
    before = await count_of(shop, "collect")
    await window.open(url_for("request", shop.day.requests["chain"]))
    await follow(window, "Replay…")
    await double(window, await primary(window))
    assert "done=replayed" in window.address
    await has_runs(shop, "collect", before + 1)


async def primary(window: Window) -> str:
    """The words of the button that does it."""
    return await window.page.locator("form[method=post] :is(button.primary, button.danger)").inner_text()


@covers("POST /ui/selection")
async def test_many_runs_are_cancelled_and_replayed(shop: Shop, open_page: OpenWindow) -> None:
    ids = [await running_report(shop, f"reports.many-{number}") for number in range(3)]
    window = await open_page(shop.url, "/ui/runs?topic=reports.>&state=running", java_script_enabled=False)
    for request_id in ids[:2]:
        (run,) = (await shop.client.result(request_id)).runs
        await window.page.locator(f'input[type=checkbox][value="{run.run_id}"]').check()
    await window.page.get_by_role("button", name="Cancel…", exact=True).click()
    assert "Cancel 2 runs?" in await window.text()
    await double(window, "Cancel 2 runs")
    assert (await window.page.locator("main tbody tr").count()) == 2
    states = [(await shop.client.result(request_id)).runs[0].state for request_id in ids]
    assert states[:2] == [State.CANCELLED] * 2
    assert states[2] in LIVE, "what was not selected goes on"
    shop.open_gate(ids[2])
    before = await count_of(shop, "add-up")
    await window.open("/ui/runs?function=add-up")
    await window.page.get_by_role("button", name="Replay all…").click()
    await double(window, await primary(window))
    await has_runs(shop, "add-up", before + before)


@covers(
    "GET /ui/functions/{name}/pause", "POST /ui/functions/{name}/pause",
    "GET /ui/functions/{name}/resume", "POST /ui/functions/{name}/resume",
    "GET /ui/reload", "POST /ui/reload",
)  # fmt: skip
async def test_a_function_is_paused_and_resumed_and_the_catalog_read_again(shop: Shop, open_page: OpenWindow) -> None:
    window = await open_page(shop.url, url_for("function", "uncompress"), java_script_enabled=False)
    await follow(window, "Pause…")
    await double(window, await primary(window))
    assert window.address == url_for("function", "uncompress") + "?done=paused"
    assert (await shop.client.functions("uncompress")).functions[0].paused
    await follow(window, "Resume…")
    await double(window, await primary(window))
    assert not (await shop.client.functions("uncompress")).functions[0].paused
    await window.open("/ui/functions")
    await follow(window, "Read the catalog again…")
    await double(window, await primary(window))
    assert window.address == "/ui/functions?done=reloaded"


@covers(
    "GET /ui/publish", "POST /ui/publish",
    "GET /ui/functions/{name}/publish", "POST /ui/functions/{name}/publish",
)  # fmt: skip
async def test_an_event_is_published(shop: Shop, open_page: OpenWindow) -> None:
    before = await count_of(shop, "take-order")
    window = await open_page(shop.url, url_for("function", "take-order", "publish"), java_script_enabled=False)
    page = window.page
    await page.get_by_label("customer").fill("Grace")
    await page.get_by_label("amount").fill("lots")
    window.allow_statuses(422, 400)
    await page.get_by_role("button", name="Publish", exact=True).click()
    assert "Nothing was published" in await page.get_by_role("alert").inner_text()
    assert await page.get_by_label("customer").input_value() == "Grace", "nothing typed is lost"
    await page.get_by_label("amount").fill("3")
    await double(window, "Publish")
    assert "/ui/requests/" in window.address
    await has_runs(shop, "take-order", before + 1)
    await window.open("/ui/publish")
    await page.get_by_label("Topic").fill("orders.by-hand")
    await page.get_by_role("button", name="Go on").click()
    await page.get_by_role("button", name="Write the input as text").click()
    await page.locator("textarea[name=raw]").fill('{"customer": "Joan", "amount": 4}')
    await page.get_by_label("Content type").fill("application/json")
    await double(window, "Publish")
    await has_runs(shop, "take-order", before + 2)


@covers(
    "GET /ui/dead-letters/{dead_id}/redrive", "POST /ui/dead-letters/{dead_id}/redrive",
    "GET /ui/dead-letters/redrive", "POST /ui/dead-letters/redrive",
)  # fmt: skip
async def test_dead_letters_are_sent_again(shop: Shop, open_page: OpenWindow) -> None:
    before = await count_of(shop, "take-order")
    window = await open_page(shop.url, url_for("dead-letter", shop.day.dead), java_script_enabled=False)
    await follow(window, "Send it again…")
    await double(window, await primary(window))
    assert "done=redriven" in window.address
    await has_runs(shop, "take-order", before + 1)
    evil = await count_of(shop, "evil")
    await window.open("/ui/dead-letters")
    await window.page.locator(f'input[type=checkbox][value="{shop.day.hostile_dead}"]').check()
    await window.page.get_by_role("button", name="Send again…").click()
    await double(window, await primary(window))
    await has_runs(shop, "evil", evil + 1)


@covers(
    "GET /ui/runs/{run_id}/log", "GET /ui/runs/{run_id}/log/live", "GET /ui/runs/{run_id}/output",
    "GET /ui/runs/{run_id}/output/image", "GET /ui/requests/{request_id}/input",
    "GET /ui/requests/{request_id}/input/image", "GET /ui/dead-letters/{dead_id}/body",
)  # fmt: skip
async def test_bytes_are_files_and_pictures_are_seen(shop: Shop, open_page: OpenWindow) -> None:
    window = await open_page(shop.url, url_for("run", shop.day.run("talk", "import-rows")))
    page = window.page
    assert (await downloaded(window, "#run-log a")).count(b"\n") == 2501
    await window.open(url_for("run", shop.day.run("picture", "paint")))
    image = page.locator("#run-output img")
    assert await image.evaluate("async (one) => (await one.decode(), one.naturalWidth)") == 16
    assert (await downloaded(window, "#run-output a")).startswith(b"\x89PNG")
    assert await downloaded(window, "#run-input a") == b"draw"
    png = await shop.client.output((await shop.client.run(shop.day.run("picture", "paint"))).result)
    sent = await shop.client.publish("nobody.listens", png, content_type="image/png")
    await shop.client.result(sent.request_id, wait=60)
    await window.open(url_for("request", sent.request_id))
    shown = page.locator("main img")
    assert await shown.first.evaluate("async (one) => (await one.decode(), one.naturalWidth)") == 16
    hostile = url_for("run", shop.day.run("evil-output", "evil"))
    await window.open(hostile)
    assert b"<script>" in await downloaded(window, "#run-output a"), "html is a file, never a page"
    await window.open(url_for("dead-letter", shop.day.hostile_dead))
    assert b"<script>" in await downloaded(window, "main .payload-facts a")
    running = await running_report(shop, "reports.log")
    await window.open(url_for("run", (await shop.client.result(running)).runs[0].run_id))
    await page.locator("[data-log-lines]", has_text="waiting").wait_for()
    shop.open_gate(running)
    await page.locator("#run-head", has_text="succeeded").wait_for()


async def downloaded(window: Window, link: str) -> bytes:
    """The bytes of the file that the link gives."""
    async with window.page.expect_download() as coming:
        await window.page.locator(link, has_text="Download").first.click()
    path = await (await coming.value).path()
    return path.read_bytes()


@covers("GET /ui/open", "GET /ui/runs", "GET /ui/topics/{topic:path}")
async def test_a_day_at_the_keyboard(shop: Shop, open_page: OpenWindow) -> None:
    """Navigation, filters, a run, cancel with its question, an event: without touching the mouse."""
    request_id = await running_report(shop, "reports.keys")
    run_id = (await shop.client.result(request_id)).runs[0].run_id
    window = await open_page(shop.url, "/ui")
    press = window.page.keyboard.press
    await tab_to(window, "Runs")
    await press("Enter")
    await window.page.wait_for_url("**/ui/runs")
    await tab_to(window, "Filters")
    await press("Enter")
    await tab_to(window, "function")
    await window.page.keyboard.type("report")
    await tab_to(window, "topic")
    await window.page.keyboard.type("reports.keys")
    await press("Enter")
    await window.page.wait_for_url("**/ui/runs?*reports.keys*")
    assert await window.page.locator("#runs tbody tr").count() == 1
    await tab_to(window, run_id[:8])
    await press("Enter")
    await window.page.wait_for_url(f"**{url_for('run', run_id)}")
    await tab_to(window, "Cancel…")
    await press("Enter")
    await window.page.wait_for_url("**/cancel")
    await tab_to(window, "Cancel the run")
    await press("Enter")
    await window.page.wait_for_url("**?done=cancelled")
    assert (await shop.client.run(run_id)).state is State.CANCELLED
    await tab_to(window, "id")
    await window.page.keyboard.type(request_id)
    await press("Enter")
    await window.page.wait_for_url(f"**{url_for('request', request_id)}")
    await window.open(url_for("function", "take-order"))
    await tab_to(window, "Publish…")
    await press("Enter")
    await window.page.wait_for_url("**/publish")
    await window.page.get_by_label("customer").focus()
    await window.page.keyboard.type("Ada")
    await tab_to(window, "Publish")
    await press("Enter")
    await window.page.wait_for_url("**/ui/requests/**")
    await tab_to(window, "Topics")
    await press("Enter")
    await window.page.wait_for_url("**/ui/topics")
    await tab_to(window, "orders.new")
    await press("Enter")
    await window.page.wait_for_url("**/ui/topics/orders.new")
