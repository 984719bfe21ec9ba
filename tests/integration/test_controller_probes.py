"""Where a controller's probes and metrics are: beside the run API, or where functions need not reach."""

from __future__ import annotations

import urllib.error
import urllib.request
from asyncio import to_thread
from pathlib import Path

import pytest

from invoker.gateway.run_address import RunAddress, run_url
from tests.controllers import running_controller
from trigger.app import probe_place
from trigger.settings import load_settings

PROBES = ("/livez", "/readyz", "/metrics")


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
async def test_probes_beside_the_run_api_or_apart(apart: bool, nats_url: str, tmp_path: Path) -> None:
    catalog = tmp_path / "functions"
    catalog.mkdir()
    port = {"probe_port": 0} if apart else {}
    async with running_controller(nats_url, catalog, tmp_path / "work", **port) as running:
        assert (running.probe_url != running.http_url) is apart
        assert [await to_thread(status, running.probe_url + path) for path in PROBES] == [200, 200, 200]
        beside = [await to_thread(status, running.http_url + path) for path in PROBES]
        assert beside == ([404, 404, 404] if apart else [200, 200, 200])
        address = run_url(running.http_url, RunAddress("request", "function"))
        assert await to_thread(status, f"{address}/input") in (401, 403), "the run API asks for the run's token"


def test_probes_are_in_the_same_place_before_a_controller_works() -> None:
    assert (probe_place(load_settings({}, probe_port=8081)).port, probe_place(load_settings({})).port) == (8081, 7222)
