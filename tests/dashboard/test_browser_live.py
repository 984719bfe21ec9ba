"""What others do is seen on an open page of a real `invoker dev`, soon and without taking anything from its reader; and
what they write is text, whatever it looks like."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

import pytest
import pytest_asyncio

from invoker.gateway.dashboard.paths import url_for
from tests.conftest import eventually
from tests.dashboard.browser import Window
from tests.dashboard.conftest import OpenWindow
from tests.dashboard.shop import Shop, open_shop
from tests.dashboard.world import HOSTILE_TOPIC, Day, attack

EVENTS = 7
CALM_SECONDS = 0.1
"""A page that takes less by itself, before and after an event, is on a machine that has time."""
WATCH = """(hrefs) => {
  window.seenAt = {};
  const look = () => {
    for (const href of hrefs) {
      if (!(href in window.seenAt) && document.querySelector(`#runs a[href="${href}"]`)) {
        window.seenAt[href] = performance.timeOrigin + performance.now();
      }
    }
  };
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
}"""
OWN_TIME = """async () => {
  const begun = performance.now();
  await (await fetch(location.href, { headers: { Accept: "text/html" } })).text();
  return (performance.now() - begun) / 1000;
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path_factory.mktemp("shop")) as running:
        yield running


async def test_a_change_is_seen_within_a_second(
    shop: Shop, open_page: OpenWindow, record_property: Callable[[str, object], None]
) -> None:
    """From the moment that is in the request's record (it is stored after it) to the moment it is on the page. On a
    loaded machine the page takes as long as it takes, which is measured beside it."""
    window = await open_page(shop.url, "/ui/runs?function=take-order")
    await window.page.wait_for_selector("[data-live-mark]:not([hidden])")
    box = window.page.locator("#runs tbody input[type=checkbox]").first
    await box.check()
    ticked = await box.get_attribute("value")
    await window.page.keyboard.press("Tab")
    kept = await window.page.evaluate("document.activeElement.outerHTML")
    ids = [shop.client.new_request_id() for _ in range(EVENTS)]
    await window.page.evaluate(WATCH, [url_for("request", one) for one in ids])
    delays, own = [], []
    for request_id in ids:
        before = float(await window.page.evaluate(OWN_TIME))
        await shop.client.publish("orders.live", {"customer": "Ada", "amount": 1}, request_id=request_id)
        await window.page.locator(f'#runs a[href="{url_for("request", request_id)}"]').wait_for()
        record = (await shop.client.result(request_id)).record
        assert record is not None
        shown = await window.page.evaluate("(href) => window.seenAt[href]", url_for("request", request_id))
        delays.append(float(shown) / 1000 - record.accepted_at.timestamp())
        own.append(max(before, float(await window.page.evaluate(OWN_TIME))))
    median = statistics.median(delays)
    told = f"live: seen {median * 1000:.0f} ms after it was accepted (median of {EVENTS}; {max(delays):.2f} s at worst)"
    record_property("told", f"{told}; the page itself took {statistics.median(own) * 1000:.0f} ms")
    calm = [delay for delay, took in zip(delays, own, strict=True) if took < CALM_SECONDS]
    assert len(calm) < 3 or statistics.median(calm) < 1.0, told
    assert median < 1.0 + 5 * max(own), told
    assert await window.page.locator(f'input[value="{ticked}"]').is_checked(), "what was ticked stays so"
    assert await window.page.evaluate("document.activeElement.outerHTML") == kept, "and the keyboard where it was"


SHOWN: dict[str, tuple[Callable[[Day], str], tuple[str, ...]]] = {
    "failed run": (lambda day: url_for("run", day.run("evil", "evil")),
                   ("type", "message", "log", "payload", "value", "id", "header")),
    "run with html": (lambda day: url_for("run", day.run("evil-output", "evil")), ("output", "log", "input")),
    "cancelled run": (lambda day: url_for("run", day.run("bytes", "report")), ("cancel",)),
    "function": (lambda day: url_for("function", "evil"),
                 ("description", "title", "schema", "property", "field", "choice", "parameter", "default")),
    "functions": (lambda day: "/ui/functions", ("description",)),
    "form": (lambda day: url_for("function", "evil", "publish"),
             ("property", "field", "choice", "parameter", "default")),
    "request": (lambda day: url_for("request", day.requests["evil"]), ("id", "header", "payload")),
    "request of nothing": (lambda day: url_for("request", day.requests["evil-unmatched"]), ("unmatched",)),
    "replay": (lambda day: url_for("run", day.run("evil", "evil"), "replay"), ("payload",)),
    "dead letter": (lambda day: url_for("dead-letter", day.hostile_dead), ("dead", "header")),
    "redrive": (lambda day: url_for("dead-letter", day.hostile_dead, "redrive"), ("dead",)),
}  # fmt: skip
"""Pages, and the fields of somebody else's that each shows."""
ALL_TEXT = """() => [document.body.textContent, ...[...document.querySelectorAll("input, textarea, option")]
  .map((one) => one.value)].join("\\n").replaceAll('\\\\"', '"').replaceAll("\\\\'", "'")"""


async def shows(window: Window, address: str, texts: list[str]) -> None:
    """The page there has all of these texts, once its gateway knows them: of a log just what was told in time."""
    missing = list(texts)

    async def is_whole() -> bool:
        await window.open(address)
        shown = await window.page.evaluate(ALL_TEXT)
        missing[:] = [text for text in texts if text not in shown]
        return not missing

    try:
        await eventually(is_whole, what=f"all that {address} shows")
    finally:
        assert not missing, address


async def test_what_others_wrote_is_text(shop: Shop, open_page: OpenWindow) -> None:
    """Every field that a publisher or a function fills is seen as it was written: nothing of it runs (the window would
    complain), and nothing of it is left out in silence."""
    window: Window = await open_page(shop.url)
    # The part that every way of writing JSON and Python leaves as it is.
    wanted = [
        (address(shop.day), [f"<script>broken('{field}')</script>{{{{7*7}}}}" for field in fields])
        for address, fields in SHOWN.values()
    ]
    pages = ("/ui", "/ui/runs", "/ui/topics", "/ui/dead-letters", url_for("topic", HOSTILE_TOPIC))
    wanted += [(address, [HOSTILE_TOPIC]) for address in pages]
    for address, texts in wanted:
        await shows(window, address, texts)
    assert attack("x").startswith("\"'><img"), "an attack on attributes and elements"


ADDRESSES = (
    "/ui/runs?function={0}&text={0}&since={0}", "/ui/open?id={0}", "/ui/requests/{0}", "/ui/runs/{0}", "/ui/topics/{0}",
    "/ui/functions/{0}", "/ui/functions?text={0}&label={0}", "/ui/explain?topic={0}&headers={0}&data={0}",
    "/ui/login?next={0}", "/ui?done={0}", "/ui/dead-letters?topic={0}&reason={0}", "/ui/publish?topic={0}",
    "/ui/selection?do={0}&run={0}", "/ui/nothing/{0}",
)  # fmt: skip


async def test_what_stands_in_an_address_is_text(shop: Shop, open_page: OpenWindow) -> None:
    window = await open_page(shop.url)
    window.allow_statuses(400, 404, 422)
    for address in ADDRESSES:
        answer = await window.open(address.format(quote(attack("address"), safe="")))
        assert answer is not None
        assert answer.status in (200, 400, 404, 422), address
        assert not await window.page.locator("img[src=x], script:not([src])").count(), address
