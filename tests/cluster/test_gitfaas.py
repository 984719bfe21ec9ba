"""Programs in pods that know an address and HTTP: the documented examples, unchanged, through a gateway outside."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from invoker.nats_server import NatsServer
from tests.cluster.controllers import KEY, Desk, desk
from tests.cluster.engine_world import PYTHON_IMAGE
from tests.cluster.facts import Cluster
from tests.cluster.images import BUSYBOX
from tests.conftest import eventually
from tests.controllers import running_controller
from tests.custody.workload import write_catalog
from tests.gateway.documented import GITFAAS_PAGE, WIRE_PAGE, examples
from tests.gateway.stack import running_gateway, session

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

DEMO = {"source": "I like bananas", "str-to-replace": "bananas", "replace-with": "apples"}


@pytest.fixture
async def here(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(cluster, namespace, tmp_path) as found:
        yield found


async def test_documented_programs_in_pods(cluster: Cluster, here: Desk, server: NatsServer, tmp_path: Path) -> None:
    """One answers in gitfaas' way, to the address in its code; the other asks the run API with a busybox's wget."""
    gateway = {
        "gateway_host": cluster.host_address, "gateway_gitfaas": True, "gateway_anonymous": ("publish", "read"),
        "gateway_accept_seconds": 60,  # an answer names the functions that run, if that is known by then
    }  # fmt: skip
    async with running_gateway(server.url, instance=here.instance, run_token_key=KEY, **gateway) as up:
        (answering,) = (yaml.safe_load(text) for text in examples(GITFAAS_PAGE, "yaml"))
        (program,) = examples(GITFAAS_PAGE, "python")
        answering["spec"] |= {
            "image": PYTHON_IMAGE, "command": ["python3", "-c", program], "ttlSecondsAfterFinished": 0,
            "env": [{"name": "http_proxy", "value": up.url}],
        }  # fmt: skip
        (asking,) = (text for text in examples(WIRE_PAGE, "sh") if text.startswith("wget"))
        sorting = {
            "subscriptions": [{"topic": "replace"}], "image": BUSYBOX, "ttlSecondsAfterFinished": 0,
            "command": ["sh", "-ec", f'cd "$INVOKER_WORKDIR"\n{asking}'],
        }  # fmt: skip
        document = {**answering, "metadata": {"name": "sort"}, "spec": sorting}
        catalog = write_catalog(tmp_path / "catalog", answering, document)
        settings = here.settings | {"run_api_url": up.url}
        async with running_controller(server.url, catalog, tmp_path / "state", **settings), session(up.url) as http:
            async with http.post("/publish/replace", json=DEMO) as answer:
                report = await answer.json()
            assert [one["path"] for one in report["applies"]] == ["replace-word", "sort"], report

            async def finished() -> dict[str, object] | None:
                async with http.get(f"/response/{report['requestUid']}") as answer:
                    told: dict[str, object] = await answer.json()
                return told if told["state"] == "finished" else None

            told = await eventually(finished, within=150, what="both answers")
            sent = b'{"source": "I like bananas", "str-to-replace": "bananas", "replace-with": "apples"}'
            wanted = [base64.b64encode(data).decode() for data in (b"I like apples", sent + b"\n")]
            assert told["responses"] == wanted, told
            await here.nothing_left()
