"""Where a controller's probes and metrics are: beside the run API, or where functions need not reach."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
from asyncio import to_thread
from pathlib import Path
from typing import Any

import pytest

from invoker.gateway.run_address import RunAddress, run_url
from tests.conftest import eventually
from tests.controllers import running_controller
from trigger.app import probe_place
from trigger.settings import load_settings

PROBES = ("/livez", "/readyz", "/metrics")


def answer_of(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def status(url: str) -> int:
    return answer_of(url)[0]


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


FUNCTION = """apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: shout}
spec: {command: [sh, -c, "exit 0"]}
"""


async def test_a_function_that_runs_in_its_last_good_version_is_named_and_hinders_nobody(
    nats_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "functions" / "shout"
    folder.mkdir(parents=True)
    file = folder / "function.yaml"
    file.write_text(FUNCTION)
    async with running_controller(nats_url, tmp_path / "functions", tmp_path / "work") as running:

        async def answers() -> dict[str, Any]:
            status, text = await to_thread(answer_of, running.probe_url + "/readyz")
            assert status == 200
            return json.loads(text)  # type: ignore[no-any-return] # the document

        assert await answers() == {"ready": True, "missing": []}
        file.write_text(FUNCTION.replace("spec:", "sepc:"))

        async def named() -> bool:
            return "degraded" in await answers()

        await eventually(named, what="the broken function in the answer")
        (words,) = (await answers())["degraded"]
        assert "shout/function.yaml" in words
        assert "sepc" in words
        assert "last good version" in words
        asked = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "invoker.ready", running.probe_url, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await asked.communicate()
        assert (asked.returncode, said.decode()) == (0, f"ready; {words}\n")
        file.write_text(FUNCTION)

        async def well() -> bool:
            return await answers() == {"ready": True, "missing": []}

        await eventually(well, what="the answer without it")


def test_probes_are_in_the_same_place_before_a_controller_works() -> None:
    assert (probe_place(load_settings({}, probe_port=8081)).port, probe_place(load_settings({})).port) == (8081, 7222)
