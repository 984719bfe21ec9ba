"""The chart on a real cluster: a release that works, as its own test, its notes and a pipeline show.

The cluster's bridge enforces no NetworkPolicy, so that those of the chart are valid is shown here, what they keep out
is not (docs/design/0018).
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from invoker.errors import UnknownIdError
from invoker.http.client import HttpClient
from tests.chart.conftest import greetings
from tests.chart.helm import CHART, Helm
from tests.chart.release import MODEST, Release, eventually
from tests.cluster.facts import Cluster, KubectlError
from tests.cluster.fixtures import make_namespace, remove_namespace
from tests.ports import lasting_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PIPELINE = ("collect", "uncompress", "convert")
EVENT = {"source": "data/tzdata", "pattern": "zone1970*"}
EVERYTHING = {
    "gateway": {
        "autoscaling": {"enabled": True},
        "ingress": {
            "enabled": True, "className": "some", "hosts": [{"host": "invoker.example.org"}],
            "tls": [{"secretName": "tls", "hosts": ["invoker.example.org"]}],
        },
        "jwt": {"existingConfigMap": "jwks", "issuer": "https://issuer.example.org", "audience": "invoker"},
    },
    "redis": {"enabled": True, "existingSecret": "redis", "ca": True},
    "admissionPolicy": {"enabled": True, "images": ["^images[.]example[.]org/"]},
    "flowSchema": {"enabled": True},
    "metrics": {"dashboards": {"enabled": True}},
    "jobs": {"networkPolicy": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}},
    "commonLabels": {"team": "etl"},
    "commonAnnotations": {"example.org/owner": "etl"},
}  # fmt: skip
EXTERNAL = {
    "nats": {
        "url": "tls://nats.example.org:4222", "evaluation": {"enabled": False},
        "tls": {"existingSecret": "nats-tls", "clientCertificate": True},
        "controller": {"method": "creds", "existingSecret": "nats-controller"},
        "gateway": {"method": "password", "existingSecret": "nats-gateway"},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "values", [{}, EVERYTHING, EXTERNAL], ids=["as it is", "everything switched on", "a NATS of one's own"]
)
def test_the_api_server_takes_all_of_it_strictly(
    helm: Helm, cluster: Cluster, module_namespace: str, values: dict[str, Any]
) -> None:
    """No unknown field, no duplicate one, no wrong type. The monitoring's objects: tests/chart/test_monitoring.py."""
    place = ("--namespace", module_namespace)
    manifest = helm("template", "invoker", str(CHART), *place, "--values=-", given=json.dumps(values))
    arguments = ("create", *place, "--dry-run=server", "--validate=strict", "--output=name", "-f", "-")
    made = cluster.kubectl(*arguments, given=manifest).split()
    assert len(made) == manifest.count("\nkind: ") > 15
    misspelt = manifest.replace("terminationGracePeriodSeconds:", "terminationGraceSeconds:")
    with pytest.raises(KubectlError, match=r'unknown field "spec.template.spec.terminationGraceSeconds"'):
        cluster.kubectl(*arguments, given=misspelt)


def test_helm_test_runs_a_job_through_the_services(shared: Release) -> None:
    assert "Phase:          Succeeded" in shared.test()


async def test_the_pipeline_goes_from_the_gateway_through_three_jobs(shared: Release) -> None:
    async with shared.client() as client:
        receipt = await client.publish("demo.collect", EVENT)
        chain = await client.chain(receipt.request_id, wait=200)
        assert [(run.function, str(run.state)) for run in chain.runs] == [(name, "succeeded") for name in PIPELINE]
        converted = chain.runs[-1].result
        assert converted is not None
        summary = json.loads(await client.output(converted))
    assert summary["rows"] > 300


async def test_an_update_of_the_catalog_is_loaded_as_one_snapshot(shared: Release) -> None:
    """Two functions in one ConfigMap change together: no snapshot has one old and one new."""
    async with shared.client() as client:
        before = await client.functions()
        assert await words(client) == {"hello"}
        loaded = catalogs_loaded(shared)
        shared.cluster.apply(greetings("goodbye"), namespace=shared.namespace)
        # The kubelet looks at volumes when it looks at their pod, once a minute, or when the pod changes.
        shared.kubectl("annotate", "pod", *shared.pods("controller"), "--overwrite", f"test/looked-at={before.catalog}")
        seen = await snapshots(client, until="goodbye")
        assert seen[-1] == {"goodbye"}
        assert {"hello", "goodbye"} not in seen
        after = await client.functions()
        assert await answer(client, "greetings.a", b"") == b"goodbye\n"
    assert catalogs_loaded(shared) == [*loaded, after.catalog]


def catalogs_loaded(release: Release) -> list[str]:
    """The versions that its controller has taken into use since its start, by its log."""
    lines = [json.loads(line) for line in release.log("controller").splitlines()]
    return [line["catalog"] for line in lines if line["event"] == "catalog loaded"]


async def answer(client: HttpClient, topic: str, data: bytes) -> bytes:
    """What the only function of a topic answers."""
    (reply,) = await client.request(topic, data, timeout=150)
    return await reply.read()


async def words(client: HttpClient) -> set[str]:
    """What the greeting functions of the catalog answer now."""
    return {one.description for one in (await client.functions()).functions if one.name.startswith("greeting-")}


async def snapshots(client: HttpClient, *, until: str) -> list[set[str]]:
    seen = [await words(client)]
    # The kubelet may have looked at the pod a moment too early, and looks again in its own time.
    async with asyncio.timeout(200):
        while until not in seen[-1]:
            seen.append(await words(client))
    return seen


def test_the_commands_of_the_notes_work_as_they_are_printed(shared: Release, folder: Path) -> None:
    """But for the port of this machine, which somebody else may have."""
    notes = shared.notes()
    port = str(lasting_port())
    commands = [line.strip().replace("8080", port) for line in notes.splitlines() if line.startswith("  ")]
    forward, export, publish = commands[:3]
    assert forward.endswith("&")
    listening = f"until (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.1; done"
    script = f"{forward}\n{listening}\n{export}\n{publish}\nkill %1"
    environ = shared.helm.environ | {"HOME": str(folder), "NO_COLOR": "1"}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    done = subprocess.run(
        ["bash", "-m", "-c", script], env=environ, cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '{"from":"helm test"}' in done.stdout
    kept = re.findall(r"^  (secret|persistentvolumeclaim)/(\S+)$", notes, re.MULTILINE)
    assert len(kept) == 4
    for kind, name in kept:
        assert shared.get(kind, name)["metadata"]["name"] == name


async def test_two_releases_in_one_namespace_and_a_tenant_in_another_do_not_meet(
    shared: Release, cluster_helm: Helm, cluster: Cluster, namespace: str
) -> None:
    """Three installations, each with a NATS account, keys and Jobs of its own."""
    other = Release(cluster_helm, cluster, shared.namespace, "other")
    work = make_namespace(cluster)
    other.install(MODEST, {"jobs": {"namespace": work}, "tenants": {"blue": {"jobs": {"namespace": namespace}}}})
    tenant = Release(cluster_helm, cluster, shared.namespace, "other-invoker-blue")
    installations = (shared, other, tenant)
    try:
        async with shared.client() as ours, other.client() as theirs, tenant.client() as blue:
            clients = (ours, theirs, blue)
            replies = [(await one.request("chart.test", "same words", timeout=150))[0] for one in clients]
            jobs = cluster.get("jobs", "--namespace", namespace)["items"]  # now: they stay for a minute
            for client in clients:
                known = [reply.request_id for reply in replies if await knows(client, reply.request_id)]
                assert known == [replies[clients.index(client)].request_id]
            names = [{one.name for one in (await client.functions()).functions} for client in clients]
        assert names == [{"chart-test", *PIPELINE, "greeting-a", "greeting-b"}, {"chart-test"}, {"chart-test"}]
        assert len({one.secret("admin-key")["key"] for one in installations}) == 3
        assert [job["metadata"]["labels"]["invoker.dev/run"] for job in jobs] == [replies[2].run_id]
    finally:
        other.uninstall()
        remove_namespace(cluster, work)
    eventually(lambda: not other.pods("controller"), "the end of the other release")
    async with shared.client() as client:
        assert await answer(client, "chart.test", b"still there") == b"still there"


async def knows(client: HttpClient, request_id: str) -> bool:
    try:
        await client.result(request_id)
    except UnknownIdError:
        return False
    return True
