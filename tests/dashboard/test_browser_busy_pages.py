"""Open pages on a bad day, in a real browser: many tabs, NATS away, answers that fail, lists that move.

A browser without a screen shows all of its tabs, so a test says itself which one is seen, as the browser would.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect

from invoker import wire
from invoker.gateway.dashboard.paths import url_for
from invoker.result import State
from tests.conftest import eventually
from tests.custody.mortal_server import mortal_server
from tests.custody.workload import function
from tests.dashboard.browser import Window
from tests.dashboard.conftest import OpenWindow
from tests.dashboard.world import LIVE, has_state
from tests.gateway.stack import Stack, running_stack, standard_catalog

TABS = 8
ROWS = 5
REFUSALS = 20
LINES = 1_100
TALK = f"""seq -f "row %g of attempt $INVOKER_ATTEMPT_NUMBER" {LINES}
test "$INVOKER_ATTEMPT_NUMBER" = 3 || exit 1
while [ ! -e "$GATES/$INVOKER_REQUEST_ID" ]; do sleep 0.02; done"""
SEEN = """
let isSeen = true;
Object.defineProperty(Document.prototype, "hidden", { get: () => !isSeen });
window.see = (seen) => {
  isSeen = seen;
  document.dispatchEvent(new Event("visibilitychange"));
};
"""
SELECT = """(selector) => {
  const range = document.createRange();
  range.selectNodeContents(document.querySelector(selector));
  getSelection().removeAllRanges();
  getSelection().addRange(range);
}"""
FOCUSED = """() => {
  const one = document.activeElement;
  return [one.closest("tr")?.dataset.row, one.getAttribute("aria-label") ?? one.textContent];
}"""
MARK = "[data-live-mark]"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    gates = folder / "gates"
    talk = function("talk", "talk.*", TALK, backoffLimit=2, env=[{"name": "GATES", "value": str(gates)}])
    async with running_stack(folder, functions=[*standard_catalog(gates), talk]) as running:
        yield running


async def running_gate(stack: Stack) -> tuple[str, str]:
    """Request and run that go on until the gate is opened."""
    request_id = (await stack.client.publish("gate.x", b"")).request_id
    await has_state(stack.client, request_id, {State.RUNNING})
    return request_id, wire.run_id_of(request_id, "gate")


async def echoes(stack: Stack, count: int) -> str:
    """That many runs of `echo` more; the id of the newest one."""
    ids = [(await stack.client.publish("echo.x", b"")).request_id for _ in range(count)]
    for request_id in ids:
        await stack.client.result(request_id, wait=60)
    return wire.run_id_of(ids[-1], "echo")


def row(page: Page, run_id: str) -> str:
    return f'#runs tr[data-row="{run_id}"]'


async def is_drawn_again(window: Window, stack: Stack) -> str:
    """When this returns the page was asked for and drawn after a new run; its id. (Pages are drawn one after the other:
    the second answer comes after the first was drawn.)"""
    newest = ""
    for _ in range(2):
        async with window.page.expect_response(lambda answer: "/ui/runs" in answer.url):
            newest = await echoes(stack, 1)
    return newest


async def test_many_tabs_are_open(stack: Stack, open_page: OpenWindow) -> None:
    """Each page of a run that goes on has two streams, and a browser has six connections for all of them."""
    request_id, run_id = await running_gate(stack)
    window = await open_page(stack.url)
    context = window.page.context
    await context.add_init_script(SEEN)
    pages: list[Page] = []
    for _ in range(TABS):
        if pages:
            await pages[-1].evaluate("see(false)")
        pages.append(await context.new_page() if pages else window.page)
        await pages[-1].goto(stack.url + url_for("run", run_id), wait_until="domcontentloaded")
        await expect(pages[-1].locator(MARK)).to_be_visible()
    await expect(pages[0].locator(MARK)).to_be_hidden()
    count = pages[0].locator("[data-log-count]")
    assert await count.get_attribute("role") is None, "who follows a log is not told of each line"
    stack.open_gate(request_id)
    await expect(pages[-1].locator("h1 .state")).to_have_text("succeeded")
    await expect(pages[0].locator("h1 .state")).to_have_text("running")
    await pages[-1].evaluate("see(false)")
    await pages[0].evaluate("see(true)")
    await expect(pages[0].locator("h1 .state")).to_have_text("succeeded")
    await expect(pages[0].locator(MARK)).to_be_visible()
    await expect(count).to_have_attribute("role", "status")


async def test_nats_goes_and_comes_again(tmp_path: Path, open_page: OpenWindow) -> None:
    async with mortal_server(tmp_path / "jetstream") as server:
        assert server.running is not None
        async with running_stack(tmp_path, server=server.running) as stack:
            window = await open_page(stack.url, "/ui/runs")
            window.allow_statuses(503)
            mark, notice = window.page.locator(MARK), window.page.locator("#notices .bad")
            await expect(mark).to_be_visible()
            await server.kill()
            await expect(notice).to_contain_text("NATS is away just now")
            await expect(mark).to_be_hidden()
            late = await open_page(stack.url, "/ui/login")
            late.allow_statuses(503)
            await late.page.goto(f"{stack.url}/ui")
            await expect(late.page.locator(".lead")).to_contain_text("NATS is away just now")
            await server.start()
            await expect(late.page.locator("h1")).to_have_text("Overview")
            await expect(mark).to_be_visible()
            await expect(notice).to_have_count(0)
            newest = await echoes(stack, 1)
            await expect(window.page.locator(row(window.page, newest))).to_be_visible()
            for one in (window, late):  # else they complain of the gateway that is about to end
                await one.page.close()


async def test_what_failed_is_asked_for_again(stack: Stack, open_page: OpenWindow) -> None:
    window = await open_page(stack.url, "/ui/runs")
    page = window.page
    window.allow_statuses(429)
    await expect(page.locator(MARK)).to_be_visible()
    refused, refusals = True, 0

    async def answer(route: Route) -> None:
        nonlocal refusals
        if refused:
            refusals += 1
            await route.fulfill(status=429, headers={"Retry-After": "0.2"}, body="")
        else:
            await route.continue_()

    await page.route(re.compile("/ui/runs$"), answer)
    newest = await echoes(stack, 1)
    await expect(page.locator("#notices .bad")).to_have_text("The gateway answers 429 just now.")
    await expect(page.locator(MARK)).to_be_hidden()
    # More often than the stream says that something has changed by this run.
    await eventually(lambda: _is(refusals > REFUSALS), what="asking again and again")
    refused = False
    await expect(page.locator(row(page, newest))).to_be_visible()
    await expect(page.locator("#notices .bad")).to_have_count(0)
    await expect(page.locator(MARK)).to_be_visible()


async def _is(so: bool) -> bool:
    return so


async def test_what_is_selected_stays_and_is_seen(stack: Stack, open_page: OpenWindow) -> None:
    """Newer runs push it off the list: it stays below, and is what the button takes."""
    oldest = await echoes(stack, 1)
    await echoes(stack, ROWS - 1)
    window = await open_page(stack.url, f"/ui/runs?function=echo&limit={ROWS}")
    page = window.page
    await page.locator(f"{row(page, oldest)} input").check()
    newest = await echoes(stack, ROWS)
    await expect(page.locator(row(page, newest))).to_be_visible()
    await expect(page.get_by_text("Selected, and not in this list any more")).to_be_visible()
    await expect(page.locator(f"{row(page, oldest)} input")).to_be_checked()
    await expect(page.locator("[data-counts=run]")).to_have_text("1 selected")
    await page.get_by_role("button", name="Replay…", exact=True).click()
    await expect(page.locator("h1")).to_contain_text("Replay 1 run")


async def test_the_keyboard_stays_where_it_is(stack: Stack, open_page: OpenWindow) -> None:
    """All rows of the list have the same links."""
    kept = await echoes(stack, 1)
    await echoes(stack, 1)
    window = await open_page(stack.url, "/ui/runs?function=echo")
    page = window.page
    for selector in (f"{row(page, kept)} td:nth-child(3) a", "#runs .scroll", "#runs thead input"):
        await page.locator(selector).focus()
        before = await page.evaluate(FOCUSED)
        newest = await echoes(stack, 1)
        await expect(page.locator(row(page, newest))).to_be_visible()
        assert await page.evaluate(FOCUSED) == before, selector


async def test_selected_text_stays_until_it_is_let_go(stack: Stack, open_page: OpenWindow) -> None:
    kept = await echoes(stack, 1)
    window = await open_page(stack.url, "/ui/runs?function=echo")
    page = window.page
    await expect(page.locator(MARK)).to_be_visible()
    await page.evaluate(SELECT, f"{row(page, kept)} td:nth-child(5)")
    selected = await page.evaluate("String(getSelection())")
    assert selected
    newest = await is_drawn_again(window, stack)
    assert await page.evaluate("String(getSelection())") == selected
    assert not await page.locator(row(page, newest)).count()
    await page.evaluate("getSelection().removeAllRanges()")
    await expect(page.locator(row(page, newest))).to_be_visible()


async def test_a_button_that_was_given_up_works_again(stack: Stack, open_page: OpenWindow) -> None:
    _, run_id = await running_gate(stack)
    window = await open_page(stack.url)
    page = window.page
    await page.clock.install()
    await window.open(url_for("run", run_id, "cancel"))
    sent: list[str] = []

    async def nothing(route: Route) -> None:
        if route.request.method != "POST":
            return await route.continue_()
        sent.append(route.request.url)
        return await route.fulfill(status=204)  # the page stays, as after the key Escape

    await page.route(re.compile("/cancel$"), nothing)
    button = page.locator("form[method=post] button.danger")
    await button.click(no_wait_after=True)
    await eventually(lambda: _is(bool(sent)), what="what the first click sends")
    await button.click(no_wait_after=True)
    await page.clock.fast_forward(11_000)
    assert len(sent) == 1, "a second click does nothing"
    await button.click(no_wait_after=True)
    await page.wait_for_function("document.querySelector('form[data-sent]') !== null")
    await eventually(lambda: _is(len(sent) > 1), what="what a later click sends")
    assert len(sent) == 2
    await stack.client.cancel(run_id)


async def test_a_long_log_keeps_its_headings_only(stack: Stack, open_page: OpenWindow) -> None:
    """Of three attempts with 1,100 lines each the newest 2,000 lines are shown: none of the first attempt."""
    request_id = (await stack.client.publish("talk.much", b"")).request_id
    await has_state(stack.client, request_id, LIVE)
    window = await open_page(stack.url, url_for("run", wire.run_id_of(request_id, "talk")))
    lines = window.page.locator("[data-log-lines]")
    last = lines.get_by_text(f"row {LINES} of attempt 3", exact=True)
    await expect(last).to_be_attached()
    assert await lines.locator(".line").count() == 2_000
    assert await lines.locator("h3").all_inner_texts() == ["Attempt 2", "Attempt 3"]
    stack.open_gate(request_id)
    await has_state(stack.client, request_id, {State.SUCCEEDED})


async def test_a_catalog_that_is_the_same_is_the_same_object(stack: Stack) -> None:
    """Every open page looks twice a second whether it is another one."""

    async def same() -> bool:
        # It tells how many runs go on as well, and those of other tests may just be ending.
        before = stack.gateway.catalog.present
        await stack.gateway.catalog.refresh()
        return stack.gateway.catalog.present is before

    await eventually(same, what="a catalog that is no other one")
