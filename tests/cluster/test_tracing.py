"""A chain of two Jobs is one trace: the span of each run is on its Job, in its container and in what it hands on."""

from __future__ import annotations

from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker import spans, wire
from invoker.tracing_switch import traced
from tests.cluster.audit import created_jobs
from tests.cluster.controllers import SOON_GONE, desk
from tests.cluster.facts import Cluster
from tests.cluster.images import BUSYBOX
from tests.conftest import eventually
from tests.controllers import View, running_controller
from tests.custody.workload import function, write_catalog
from tests.tracing.receiver import otlp_receiver

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


async def test_a_chain_of_jobs_is_one_trace(
    cluster: Cluster, namespace: str, nats_url: str, client: NatsClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = function(
        "first", "first", 'printf %s "$TRACEPARENT"', image=BUSYBOX, command=["sh", "-c", 'printf %s "$TRACEPARENT"'],
        output={"from": "stdout"}, onSuccess={"publish": "second"}, **SOON_GONE,
    )  # fmt: skip
    code = "def handle(event, context):\n    return f\"{event['data'].decode()} {context.traceparent}\"\n"
    second = function("second", "second", "", runtime="python", handler="main.handle", code=code, **SOON_GONE)
    del second["spec"]["command"]
    catalog = write_catalog(tmp_path / "catalog", first, second)
    with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        with traced("test", {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_SCHEDULE_DELAY": "50"}):
            async with desk(cluster, namespace, tmp_path) as here:
                settings = {**here.settings, "http_host": cluster.host_address, "run_api_url": None}
                async with running_controller(nats_url, catalog, tmp_path / "state", **settings):
                    view = View(client, here.names)
                    await view.publish("first", b"x", "traced-1", traceparent=f"00-{TRACE}-{CALLER}-01")
                    following = wire.chained_id(wire.run_id_of("traced-1", "first"), "onSuccess")
                    result = await view.result(following, "second", within=150)

                    async def told() -> bool:
                        return bool(receiver.named("run second"))

                    await eventually(told, within=60, what="the span of the second run")
                    await here.nothing_left()
        runs = {run.span_id: run for run in (receiver.one("run first"), receiver.one("run second"))}
    assert {span.trace_id for span in receiver.spans} == {TRACE}
    assert {span.parent for span in receiver.spans} - receiver.ids() == {CALLER}
    expected = [f"00-{TRACE}-{spans.derived_id('run', run.attributes['invoker.run_id'])}-01" for run in runs.values()]
    assert result.output.inline_bytes() == " ".join(expected).encode()
    jobs = [job["metadata"]["annotations"]["invoker.dev/traceparent"] for job in created_jobs(cluster, namespace)]
    assert jobs == expected
    for run in runs.values():
        assert run.attributes["k8s.namespace.name"] == namespace
        assert run.attributes["invoker.engine"] == "kubernetes"
        assert [span.name for span in receiver.spans if span.parent == run.span_id and "attempt" in span.name]
