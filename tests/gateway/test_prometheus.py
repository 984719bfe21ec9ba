"""A real Prometheus scrapes a real controller and gateway: what it makes of their metrics, alerts and dashboard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio

from scripts import dashboard
from tests.conftest import eventually
from tests.docs.transcript import ROOT
from tests.gateway.exposition import Exposition
from tests.gateway.stack import Stack
from tests.ports import lasting_port
from tests.promtool import program, promtool

RULES = ROOT / "charts" / "invoker" / "files" / "alerts.yaml"
QUIET_UNTIL_USED = {"Streams that have a bound, how full", "Results in Redis"}
"""Panels that are empty here: no stream has a bound, there is no Redis."""


@dataclass(frozen=True)
class Prometheus:
    """One that scrapes twice a second and evaluates the rules every second."""

    url: str

    async def ask(self, path: str, **params: str) -> Any:
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/api/v1/{path}", params=params) as answer:
            document = await answer.json()
            assert document["status"] == "success", (params, document.get("error"))
            return document["data"]

    async def result(self, query: str) -> list[Any]:
        data = await self.ask("query", query=query)
        return list(data["result"])


@asynccontextmanager
async def prometheus(folder: Path, **targets: str) -> AsyncIterator[Prometheus]:
    """Scrapes each target as the job of that name; ends when this is left, and takes its store along."""
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [url.removeprefix("http://")]}]}
        for job, url in targets.items()
    ]
    config = {"global": {"scrape_interval": "500ms", "evaluation_interval": "1s"}, "scrape_configs": jobs}
    file = folder / "prometheus.json"
    file.write_text(json.dumps(config | {"rule_files": [str(RULES)]}))
    promtool("check", "config", str(file))
    address = f"127.0.0.1:{lasting_port()}"
    process = await asyncio.create_subprocess_exec(
        program("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}", "--log.level=error", "--web.enable-lifecycle",
        stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        running = Prometheus(f"http://{address}")

        async def scraped() -> bool:
            try:
                return len(await running.result("up == 1 and on (job) count_over_time(up[1m]) > 3")) == len(targets)
            except aiohttp.ClientError:
                assert process.returncode is None, "prometheus ended"
                return False

        await eventually(scraped, within=60, what="some scrapes of every target")
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scraping(stack: Stack, tmp_path_factory: Any) -> AsyncIterator[Prometheus]:
    """A Prometheus beside the module's stack, in which a run has succeeded and one has failed."""
    for topic in ("echo.x", "fail.x"):
        await stack.client.request(topic, b"x", timeout=60)
    folder = tmp_path_factory.mktemp("prometheus")
    async with prometheus(folder, controller=stack.controller.http_url, gateway=stack.probe_url) as running:
        yield running


async def test_promtool_finds_nothing_wrong_with_names_and_units(stack: Stack) -> None:
    for url in (stack.controller.http_url, stack.probe_url):
        ours = [line for line in (await Exposition.of(url)).text.splitlines(keepends=True) if "invoker_" in line]
        assert promtool("check", "metrics", text="".join(ours)) == ""


async def test_every_query_of_the_dashboard_is_answered_and_its_panel_shows_something(scraping: Prometheus) -> None:
    empty = set()
    for panel in dashboard.dashboard()["panels"]:
        queries = [target["expr"] for target in panel.get("targets", ())]
        answers = [await scraping.result(with_variables(query)) for query in queries]
        if queries and not any(answers):
            empty.add(panel["title"])
    assert empty == QUIET_UNTIL_USED


def with_variables(query: str) -> str:
    """As Grafana puts it when everything is chosen."""
    for name, value in {"__rate_interval": "1m", "__range": "1m", "namespace": ".*", "installation": ".*",
                        "instance": ".*", "function": ".*"}.items():  # fmt: skip
        query = query.replace(f"${name}", value)
    assert "$" not in query
    return query


async def test_the_variables_of_the_dashboard_have_values(scraping: Prometheus, stack: Stack) -> None:
    functions = await scraping.ask("label/function/values", **{"match[]": "invoker_runs_active"})
    assert {"echo", "fail", "gate"} <= set(functions)
    instances = await scraping.ask("label/instance/values", **{"match[]": "invoker_build_info"})
    assert {f"http://{one}" for one in instances} == {stack.controller.http_url, stack.probe_url}


async def test_the_rules_are_healthy_and_nothing_is_wrong_with_a_stack_that_works(scraping: Prometheus) -> None:
    async def evaluated() -> list[dict[str, Any]] | None:
        groups = (await scraping.ask("rules"))["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else None

    rules = await eventually(evaluated, what="rules all of which were evaluated")
    assert len(rules) == RULES.read_text().count("- alert: ")
    assert {(rule["name"], rule["health"]) for rule in rules if rule["health"] != "ok"} == set()
    firing = {rule["name"] for rule in rules if rule["state"] != "inactive"}
    assert firing <= {"InvokerHeartbeatsLate"}, "that one is true of a machine which is busy with other tests"
