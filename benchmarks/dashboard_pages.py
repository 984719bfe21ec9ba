"""Every page of the dashboard over 100,000 stored runs, beside an empty page (the one for signing in).

The pages are taken from the routes: one that this script knows no address of is told. Requests and runs are put into
RESULTS as a controller would put them; a controller with the functions is there for the catalog, for some runs that go
on, wait, or were made dead letters. The gateway is a process of its own; the memory of its tables is told, too.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import aiohttp
from gateway_process import gateway_process
from nats.aio.client import Client as NatsClient
from rig import machine, processor_seconds, resident_bytes, rig

from invoker import wire
from invoker.client import Client
from invoker.connection import ConnectionOptions, connect
from invoker.gateway.catalog_copy import CatalogCopy
from invoker.gateway.dashboard.paths import LOGIN
from invoker.gateway.dashboard.routes import dashboard_routers
from invoker.gateway.dead_news import DeadNews
from invoker.gateway.gateway import Gateway
from invoker.gateway.run_table import RunTable
from invoker.gateway.settings import GatewaySettings
from invoker.gateway.topic_table import TopicTable
from invoker.request import Content, RequestRecord
from invoker.result import Attempt, Reason, Result, State
from invoker.results.nats import ResultStream
from invoker.shared_reads import SharedReads
from invoker.views import DeadLetter

GOAL_MS = 200
IN_A_ROW = 20
FUNCTIONS = 50
RUNNING, WAITING, DEAD = 4, 60, 40
_FAILED = {3: Reason.ERROR, 5: Reason.OUT_OF_MEMORY, 7: Reason.TIMEOUT}
_STATES = {Reason.COMPLETED: State.SUCCEEDED, Reason.TIMEOUT: State.TIMED_OUT}
_NO_PAGE = re.compile(r"/ui/(assets|live|login|logout)\b|/live$|^/(ui/)?$")
"""What is no page but a file, a stream, or the reference."""
_BODY = Content.inline(b'{"number": 1, "items": [{"sku": "a"}]}', wire.CONTENT_TYPE_JSON)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    print(machine())
    async with rig(_functions(), {"log_level": "error"}) as bench:
        began = time.perf_counter()
        ids = await _store(bench.nats_url, given.runs)
        print(f"{given.runs} requests and runs stored in {time.perf_counter() - began:.1f} s")
        async with gateway_process(bench.nats_url) as gateway, aiohttp.ClientSession(gateway.url) as http:
            before = resident_bytes(gateway.pid)
            waited = await _filled(http)
            after = resident_bytes(gateway.pid)
            print(f"tables filled after {waited:.1f} s; memory {before >> 20} → {after >> 20} MiB")
            await _measure(http, _pages(ids), given.rounds, gateway.pid)
            print(f"memory after all pages {resident_bytes(gateway.pid) >> 20} MiB")


def _functions() -> dict[str, str]:
    """The functions of the stored runs, which never run here, and one whose runs go on."""
    form = """
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {{name: {name}}}
spec:
  description: One of many
  subscriptions: [{{topic: "{topic}"}}]
  command: [bash, -c, "{script}"]
  concurrency: {concurrency}
  input: {{as: file, schema: {{type: object, properties: {{number: {{type: integer}}}}}}}}
  output: {{from: stdout}}
"""
    many = {
        f"function-{n}": form.format(name=f"function-{n}", topic=f"orders.{n}.*", script="exit 0", concurrency=2)
        for n in range(FUNCTIONS)
    }
    return many | {"long": form.format(name="long", topic="long.>", script="sleep 3000", concurrency=RUNNING)}


async def _store(url: str, count: int) -> dict[str, str]:
    """Fill the streams; ids of something in the middle of it all."""
    client = await connect(ConnectionOptions(url=url))
    js, names = client.jetstream(), wire.Names()
    results, now, free = ResultStream(client, js, names), datetime.now(UTC), asyncio.Semaphore(256)

    async def put(number: int) -> None:
        async with free:
            record = _record(number, now - timedelta(seconds=(count - number) / 28))
            await results.put_record(record)
            if record.functions:
                await results.put_result(_result(number, record))

    for start in range(0, count, 5_000):
        await asyncio.gather(*(put(number) for number in range(start, min(count, start + 5_000))))
    async with Client.connect(ConnectionOptions(url=url)) as sdk:
        for number in range(RUNNING + WAITING):
            await sdk.publish(f"long.{number}", {"number": number})
    for number in range(DEAD):
        letter = _dead_letter(number, now)
        await js.publish(names.dead(letter.id), letter.to_json())
    middle = _record(count // 2, now)
    await client.close()
    return {
        "dead-letter": _dead_letter(0, now).id, "request": middle.request_id, "function": middle.functions[0],
        "run": wire.run_id_of(middle.request_id, middle.functions[0]), "topic": middle.topic,
    }  # fmt: skip


def _record(number: int, at: datetime) -> RequestRecord:
    """One in forty requests matches nothing."""
    request_id = f"request-{number:08d}"
    functions = () if number % 40 == 39 else (f"function-{number % FUNCTIONS}",)
    return RequestRecord(
        request_id=request_id, topic=f"orders.{number % 440}.x", received_at=at, accepted_at=at, functions=functions,
        sha256=wire.sha256_hex(_BODY.inline_bytes() or b""), catalog="c", root_request_id=request_id, body=_BODY,
    )  # fmt: skip


def _result(number: int, record: RequestRecord) -> Result:
    reason = _FAILED.get(number % 100, Reason.COMPLETED)
    begin, end = record.accepted_at, record.accepted_at + timedelta(milliseconds=20 + number % 977)
    attempt = Attempt(number=1, started_at=begin, finished_at=end, exit_code=0 if reason is Reason.COMPLETED else 1)
    function = record.functions[0]
    return Result(
        request_id=record.request_id, run_id=wire.run_id_of(record.request_id, function), function=function,
        topic=record.topic, state=_STATES.get(reason, State.FAILED), reason=reason, attempts=(attempt,),
        queued_at=begin, started_at=begin, finished_at=end, root_request_id=record.request_id,
        output=_BODY, log_tail="one line\nanother line\n",
    )  # fmt: skip


def _dead_letter(number: int, at: datetime) -> DeadLetter:
    dead_id = wire.run_id_of(f"dead-{number}", "nobody")
    return DeadLetter(
        id=dead_id, reason="hop-limit", message="the chain has too many hops", topic=f"orders.{number}.x", dead_at=at,
        subject=f"events.orders.{number}.x", stream="INVOKER_EVENTS", sequence=number + 1, body=_BODY,
    )  # fmt: skip


def _pages(ids: Mapping[str, str]) -> dict[str, str]:
    """An address for each page, by its route; pages without one are told. Lists are looked at through filters, too."""
    values = {
        "run_id": ids["run"], "request_id": ids["request"], "function": ids["function"], "name": ids["function"],
        "topic": ids["topic"], "dead_id": ids["dead-letter"],
    }  # fmt: skip
    pages = {}
    for path in sorted(_routes()):
        names = re.findall(r"{(\w+)(?::path)?}", path)
        if all(name in values for name in names):
            pages[path] = re.sub(r"{(\w+)(?::path)?}", lambda found: values[found[1]], path)
        else:
            print(f"  {path}: no address of it is known here")
    return pages | {
        "runs, failed": "/ui/runs?state=failed",
        "runs, function and reason": "/ui/runs?function=function-7&reason=timeout",
        "runs, topic pattern": "/ui/runs?topic=orders.*.x",
        "runs, text that fits nothing": "/ui/runs?text=nothinglikethat",
        "runs, 200 at once": "/ui/runs?limit=200",
        "topics, text": "/ui/topics?text=orders.7",
        "what an event would run": f"/ui/explain?topic={ids['topic']}",
        "why a request ran": f"/ui/explain?request={ids['request']}",
        "opened by id": f"/ui/open?id={ids['run']}",
    }


def _routes() -> set[str]:
    """The paths of all pages: what is read, by a browser, as a page."""
    client = Client(NatsClient(), wire.Names(), ConnectionOptions())  # never connected: the routes are only listed
    gateway = Gateway(
        GatewaySettings(), client, CatalogCopy(client), RunTable(client.feed), TopicTable(client.feed, wire.Names()),
        DeadNews(client), SharedReads(client.stored.request),
    )  # fmt: skip
    routes = [route for router in dashboard_routers(gateway) for route in router.routes]
    paths = {getattr(route, "path", "") for route in routes if "GET" in (getattr(route, "methods", None) or ())}
    return {path for path in paths if not _NO_PAGE.search(path)}


async def _measure(http: aiohttp.ClientSession, pages: Mapping[str, str], rounds: int, pid: int) -> None:
    """All pages in turn, the empty one before each: what else the machine does falls on all alike. Afterwards each is
    asked for several times in a row, for the processor time of the gateway."""
    empty: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in pages}
    status: dict[str, tuple[int, int]] = {}
    for number in range(rounds + 1):
        for name, address in pages.items():
            reference, _ = await _asked(http, LOGIN)
            took, status[name] = await _asked(http, address)
            if number:  # the first round is the warm-up
                empty.append(reference)
                times[name].append(took)
    base = statistics.median(empty)
    print(f"  {'empty page (reference)':36s} p50 {base:7.2f} ms   p95 {_p95(empty):7.2f} ms")
    worst = 0.0
    for name, found in sorted(times.items(), key=lambda one: -_p95(one[1])):
        p50, p95 = statistics.median(found), _p95(found)
        worst = max(worst, p95)
        code, size = status[name]
        cost = await _processor_ms(http, pages[name], pid)
        print(
            f"  {name:36s} p50 {p50:7.2f} ms   p95 {p95:7.2f} ms   {p50 / base:5.1f} ×   processor {cost:5.1f} ms   "
            f"{code}, {size >> 10} KiB"
        )
    print(f"worst p95 {worst:.1f} ms, goal {GOAL_MS} ms")


async def _asked(http: aiohttp.ClientSession, address: str) -> tuple[float, tuple[int, int]]:
    began = time.perf_counter()
    async with http.get(address, headers={"Accept": "text/html"}, allow_redirects=False) as answer:
        size = len(await answer.read())
    return (time.perf_counter() - began) * 1000, (answer.status, size)


async def _processor_ms(http: aiohttp.ClientSession, address: str, pid: int) -> float:
    """Of one page, in the gateway's process alone."""
    before = processor_seconds(pid)
    for _ in range(IN_A_ROW):
        await _asked(http, address)
    return (processor_seconds(pid) - before) * 1000 / IN_A_ROW


def _p95(milliseconds: list[float]) -> float:
    return sorted(milliseconds)[max(0, int(len(milliseconds) * 0.95) - 1)]


async def _filled(http: aiohttp.ClientSession) -> float:
    """When this returns the gateway has read the past, and knows the catalog."""
    began = time.perf_counter()
    while True:
        text = await _text(http, "/ui/topics")
        if "Still reading the past" not in text and "function-7" in await _text(http, "/ui/functions"):
            return time.perf_counter() - began
        await asyncio.sleep(0.2)


async def _text(http: aiohttp.ClientSession, address: str) -> str:
    async with http.get(address, headers={"Accept": "text/html"}) as answer:
        return await answer.text()


if __name__ == "__main__":
    asyncio.run(main())
