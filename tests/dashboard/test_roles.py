"""Who may do what on the pages: nobody is shown a button that he may not press, and it does nothing for him.

The pages of a reader are found by following every link from the first one.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urldefrag

import pytest
import pytest_asyncio

from invoker.gateway.dashboard.forms import new_key
from invoker.gateway.dashboard.paths import is_ours
from invoker.gateway.gateway import Gateway
from tests.conftest import eventually
from tests.dashboard.html_page import PageForm
from tests.dashboard.routes import routes_of
from tests.dashboard.visitor import Seen, Visitor, visiting
from tests.dashboard.world import SECRET, Day, catalog, live_through
from tests.gateway.access_world import add_key, guarded_gateway
from tests.gateway.stack import Stack, running_stack

FOR_EVERYBODY = {"POST /ui/login", "POST /ui/logout"}
SCOPES = {
    "admin": ("admin",),
    "viewer": ("read",),
    "operator-of-reports": ("read", "operate reports.>"),
    "publisher-of-orders": ("read", "publish orders.>"),
    "in-the-warehouse": ("operate stock.> reserve",),
}


@dataclass(frozen=True)
class House:
    """A gateway with keys, and a day behind it. `visitor(name)` is who has signed in with that key."""

    stack: Stack
    gateway: Gateway
    day: Day
    anybody: Visitor
    keys: dict[str, str]

    def visitor(self, name: str) -> Visitor:
        return replace(self.anybody, key=self.keys[name])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    gates = folder / "gates"
    gates.mkdir()
    keys = {name: add_key(folder / "keys.json", name, *scopes) for name, scopes in SCOPES.items()}
    async with running_stack(folder, functions=catalog(gates)) as stack:
        day = await live_through(stack.client)
        async with guarded_gateway(stack.server.url, gateway_keys=Path(folder / "keys.json")) as up:

            async def read() -> bool:
                return up.gateway.catalog.is_known and up.gateway.runs.loaded and up.gateway.topics.loaded

            await eventually(read, what="a gateway that has read what there is")
            async with visiting(up.url) as anybody:
                yield House(stack, up.gateway, day, anybody, keys)


@dataclass
class Walk:
    """What somebody saw who followed every link."""

    seen: dict[str, Seen]
    forms: list[tuple[str, PageForm]]

    @property
    def texts(self) -> list[tuple[str, bytes]]:
        return [(address, one.body) for address, one in self.seen.items()]


async def walk(visitor: Visitor, most: int = 600) -> Walk:
    """Every page that is linked from the first one, and from those; files too."""
    found, left, known = Walk({}, []), ["/ui"], {"/ui?"}
    while left:
        address = left.pop()
        if "/live" in address:
            continue
        seen = found.seen[address] = await visitor.get(address)
        assert len(found.seen) <= most, "pages without end"
        if not seen.headers.get("Content-Type", "").startswith("text/html"):
            continue
        page = seen.page
        found.forms += [(address, form) for form in page.forms]
        addresses = [one for _, one in page.links] + [one["src"] for one in page.all("img")]
        # Filters and further pages show the same things again: one of each kind is enough.
        for one in (urldefrag(one).url for one in addresses):
            if is_ours(one.partition("?")[0]) and _kind(one) not in known:
                known.add(_kind(one))
                left.append(one)
    return found


def _kind(address: str) -> str:
    """The address without the values of its query, save on pages that are about what stands there."""
    path, _, query = address.partition("?")
    if path in ("/ui/explain", "/ui/publish"):
        return address
    return path + "?" + "&".join(sorted(re.findall(r"(?:^|&)(\w+)=", query)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def walks(house: House) -> dict[str, Walk]:
    """What each of them saw."""
    return {name: await walk(house.visitor(name)) for name in SCOPES}


@pytest.mark.parametrize("name", list(SCOPES))
async def test_whatever_is_shown_may_be_used(house: House, walks: dict[str, Walk], name: str) -> None:
    """Every link leads somewhere, and every form is one that its reader may send."""
    visitor, walked = house.visitor(name), walks[name]
    assert len(walked.seen) > 15
    refused = {address: seen.status for address, seen in walked.seen.items() if seen.status >= 400}
    # A topic or a request that is not kept any more is no button.
    assert not [address for address, status in refused.items() if status == 403], refused
    assert not [address for address, status in refused.items() if status >= 500], refused
    posts = {form.action.partition("?")[0] for _, form in walked.forms if form.method == "post"} - {"/ui/logout"}
    if name == "viewer":
        assert not posts, "a reader was shown a form that changes something"
    if name == "admin":
        assert len(posts) > 20
    for action, form in {form.action: form for _, form in walked.forms if form.method == "get"}.items():
        assert (await visitor.send(form)).status not in (403, 500), action


async def test_fields_that_are_declared_secret_are_for_operators(house: House, walks: dict[str, Walk]) -> None:
    seen = {
        name: [address for address, body in walked.texts if SECRET.encode() in body] for name, walked in walks.items()
    }
    assert seen.pop("admin"), "the secret is there to be seen"
    assert not any(seen.values()), seen
    output = f"/ui/runs/{house.day.run('order', 'take-order')}/output"
    given = f"/ui/requests/{house.day.requests['order']}/input"
    for address in (output, given, f"{given}/image", f"{output}/image"):
        assert (await house.visitor("viewer").get(address)).status in (403, 404, 406, 409, 415, 422), address
    assert SECRET.encode() in (await house.visitor("admin").get(given)).body


def posts_of(house: House) -> list[tuple[str, str]]:
    """Every address that changes something, about things that are there, and a body with all that any of them wants."""
    day = house.day
    values = {
        "run_id": day.run("running", "report"), "request_id": day.requests["running"], "name": "report",
        "dead_id": day.dead,
    }  # fmt: skip
    body = (
        f"once={new_key()}&do=cancel&run={values['run_id']}&id={day.dead}&mode=raw&raw=x&type=text/plain&payload=same"
        "&topic=reports.daily&data=x"
    )
    routes = sorted(route for route in routes_of(house.gateway) if route.startswith("POST "))
    paths = [route.removeprefix("POST ") for route in routes if route not in FOR_EVERYBODY]
    assert len(paths) >= 12
    return [(path.format(**values) + ("?topic=reports.daily" if path == "/ui/publish" else ""), body) for path in paths]


async def test_who_may_only_read_changes_nothing(house: House) -> None:
    viewer = house.visitor("viewer")
    before = len(await house.stack.client.runs(limit=500))
    for path, body in posts_of(house):
        answer = await viewer.ask("POST", path, body)
        assert answer.status == 403, (path, answer.status, answer.text[:1000])
        question = await viewer.get(path)
        assert question.status == 403, f"GET {path}: {question.status}"
    await nothing_has_changed(house, before)


async def test_another_site_changes_nothing_with_the_cookie_of_a_reader(house: House) -> None:
    admin = house.visitor("admin")
    before = len(await house.stack.client.runs(limit=500))
    for path, body in posts_of(house):
        for headers in (
            {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"},
        ):  # fmt: skip
            answer = await admin.ask("POST", path, body, **headers)
            assert answer.status == 403, (path, headers)
    await nothing_has_changed(house, before)


async def test_what_changes_something_is_never_read(house: House) -> None:
    """A link, a picture or a crawler changes nothing, whoever follows it."""
    before = len(await house.stack.client.runs(limit=500))
    for path, body in posts_of(house):
        answer = await house.visitor("admin").get(f"{path}{'&' if '?' in path else '?'}{body}")
        assert answer.status in (200, 303, 400, 404, 422), (path, answer.status)
    await nothing_has_changed(house, before)


async def nothing_has_changed(house: House, before: int) -> None:
    client, day = house.stack.client, house.day
    assert (await client.run(day.run("running", "report"))).result is None
    assert not (await client.functions("report")).functions[0].paused
    assert len(await client.runs(limit=500)) == before


async def test_nobody_else_sees_anything(house: House, walks: dict[str, Walk]) -> None:
    """Somebody of another department: what he may not see is unknown to him, on every page about it."""
    other, day = house.visitor("in-the-warehouse"), house.day
    for address in (
        f"/ui/runs/{day.run('order', 'take-order')}", f"/ui/requests/{day.requests['order']}", "/ui/functions/report",
        f"/ui/requests/{day.requests['order']}/input", f"/ui/runs/{day.run('talk', 'import-rows')}/log",
        f"/ui/dead-letters/{day.dead}",
    ):  # fmt: skip
        assert (await other.get(address)).status == 404, address
    text = b"".join(body for _, body in walks["in-the-warehouse"].texts)
    for word in ("take-order", "import-rows", "orders.new", "Ada", day.requests["order"]):
        assert word.encode() not in text, word
    assert (await other.get(f"/ui/runs/{day.run('flaky', 'reserve')}")).status == 200
