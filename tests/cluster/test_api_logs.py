"""Logs of real pods through the API layer, and who we are inside of a cluster, on a real API server and kubelet."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.facts import Cluster
from tests.cluster.fault_proxy import FaultProxy
from tests.cluster.faults import Answer, CutStream, Rule
from tests.conftest import eventually
from trigger.kubernetes_engine.api import Api, CallLimits
from trigger.kubernetes_engine.credentials import ClusterAccess
from trigger.kubernetes_engine.failures import ApiFailure, LogTrouble, log_trouble
from trigger.kubernetes_engine.retries import Patience

pytestmark = pytest.mark.cluster

PATIENT = CallLimits(patience=Patience(bound_seconds=60.0, first_pause_seconds=0.02))
RECORDED = Path(__file__).parent.parent / "unit" / "kubernetes_engine" / "recorded"
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def pod(name: str, script: str = "true", image: str = "localhost/busybox:1") -> dict[str, object]:
    function = {"name": "function", "image": image, "command": ["sh", "-c", script], "securityContext": RESTRICTED}
    user = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "restartPolicy": "Never", "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0,
        "securityContext": user, "containers": [function],
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def ended_pod(cluster: Cluster, module_namespace: str) -> str:
    """A pod that wrote two lines to stdout and one to stderr, and has ended."""
    cluster.apply(pod("ended", "echo one; echo trouble >&2; echo two"), namespace=module_namespace)
    until = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("wait", "pod/ended", until, "-n", module_namespace, "--timeout=150s")
    return "ended"


@pytest.fixture
async def proxy(cluster: Cluster, tmp_path: Path, module_namespace: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(cluster.kubeconfig, tmp_path / "proxy", namespace=module_namespace) as running:
        yield running


@pytest.fixture
async def api(proxy: FaultProxy) -> AsyncIterator[Api]:
    async with Api(ClusterAccess(kubeconfig=proxy.kubeconfig), limits=PATIENT) as opened:
        yield opened


async def read(api: Api, name: str, *, only_stdout: bool = False, tail_lines: int | None = None) -> bytes:
    log = api.pod_log(name, "function", only_stdout=only_stdout, tail_lines=tail_lines)
    return b"".join([chunk async for chunk in log])


async def test_both_streams_and_the_last_lines(api: Api, ended_pod: str) -> None:
    assert sorted((await read(api, ended_pod)).split()) == [b"one", b"trouble", b"two"]
    assert len((await read(api, ended_pod, tail_lines=2)).split()) == 2
    stamped = [chunk async for chunk in api.pod_log(ended_pod, "function", timestamps=True)]
    assert b"".join(stamped).startswith(b"20")


async def test_stdout_alone_where_the_cluster_can(proxy: FaultProxy, api: Api, ended_pod: str) -> None:
    both = await read(api, ended_pod, only_stdout=True)
    if api.splits_streams:
        assert both == b"one\ntwo\n"
    else:  # a cluster that was given to us may not have the feature
        assert b"trouble" in both
    before = proxy.requests["log", "pods"]
    await read(api, ended_pod, only_stdout=True)
    assert proxy.requests["log", "pods"] == before + 1  # it was found out once


@pytest.mark.parametrize("answer", ["422_log_stream_forbidden", "404_log"])
async def test_both_streams_where_the_api_server_cannot(
    proxy: FaultProxy, api: Api, ended_pod: str, answer: str
) -> None:
    """Switched off, as the API server says it; and older, where the parameter is not known and the pod is missed."""
    body = (RECORDED / f"{answer}.json").read_bytes()
    proxy.inject(Rule(Answer(int(answer[:3]), body), verb="log", path="stream=Stdout.*tailLines"))
    assert b"trouble" in await read(api, ended_pod, only_stdout=True)
    assert api.splits_streams is False


async def test_both_streams_where_the_kubelet_cannot(proxy: FaultProxy, api: Api, ended_pod: str) -> None:
    text = 'unable to return the given log stream: "Stdout". '
    text += "Please enable PodLogsQuerySplitStreams feature gate in kubelet"
    body = json.dumps({"kind": "Status", "message": text, "reason": "BadRequest", "code": 400}).encode()
    proxy.inject(Rule(Answer(422, (RECORDED / "422_log_stream_and_tail.json").read_bytes()), verb="log"))
    proxy.inject(Rule(Answer(400, body), verb="log", path=f"{ended_pod}/log.*stream=Stdout"))
    assert b"trouble" in await read(api, ended_pod, only_stdout=True)
    assert api.splits_streams is False


async def test_following_ends_with_the_container(cluster: Cluster, api: Api, module_namespace: str) -> None:
    script = "echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo last"
    cluster.apply(pod("followed", script), namespace=module_namespace)
    cluster.kubectl("wait", "pod/followed", "--for=condition=Ready", "-n", module_namespace, "--timeout=150s")
    heard: list[bytes] = []

    async def follow() -> None:
        async for chunk in api.pod_log("followed", "function", follow=True):
            heard.append(chunk)

    following = asyncio.ensure_future(follow())

    async def has_begun() -> bool:
        return b"".join(heard) == b"first\n"

    await eventually(has_begun, what="the first line")
    await asyncio.to_thread(cluster.kubectl, "exec", "followed", "-n", module_namespace, "--", "touch", "/tmp/go")
    await asyncio.wait_for(following, 60)
    assert b"".join(heard) == b"first\nlast\n"


async def test_a_log_that_is_cut_is_not_taken_for_whole(proxy: FaultProxy, api: Api, ended_pod: str) -> None:
    proxy.inject(Rule(CutStream(after_events=1), verb="log"))
    with pytest.raises(ApiFailure) as failure:
        await read(api, ended_pod)
    assert failure.value.status == 0


async def trouble_of(api: Api, name: str, container: str = "function") -> LogTrouble | None:
    try:
        async for _ in api.pod_log(name, container):
            pass
    except ApiFailure as failure:
        return log_trouble(failure)
    return None


async def test_why_there_is_no_log(cluster: Cluster, api: Api, ended_pod: str, module_namespace: str) -> None:
    cluster.apply(pod("waiting", image="localhost/not-there:1"), namespace=module_namespace)
    assert await trouble_of(api, "never-was") is LogTrouble.GONE
    assert await trouble_of(api, ended_pod, container="other") is LogTrouble.GONE

    async def is_waiting() -> bool:
        return await trouble_of(api, "waiting") is LogTrouble.NOT_YET  # none before it has a node

    await eventually(is_waiting, what="the pod at its node")


# Inside of a cluster


@pytest.fixture
def account(cluster: Cluster, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service account's folder as a pod has it, for the proxy as the API server; its token is a real one."""
    host, port = proxy.server.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "ca.crt").symlink_to(proxy.ca_file)
    return folder


@pytest.fixture
def real_token(cluster: Cluster, module_namespace: str) -> str:
    """Of an account that may read pods."""
    there = ["-n", module_namespace]
    for command in (
        ["create", "serviceaccount", "reader"],
        ["create", "role", "reader", "--verb=get", "--resource=pods"],
        ["create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={module_namespace}:reader"],
    ):
        given = cluster.kubectl(*command, *there, "--dry-run=client", "-o", "yaml")
        cluster.kubectl("apply", *there, "-f", "-", given=given)
    return cluster.kubectl("create", "token", "reader", *there).strip()


async def test_a_service_accounts_token_rotates(
    proxy: FaultProxy, account: Path, real_token: str, module_namespace: str
) -> None:
    """The first token is refused by the real API server; the next one is read at once and the call repeated."""
    header, _, signature = real_token.split(".")
    forged = base64.urlsafe_b64encode(b'{"iss":"https://kubernetes.default.svc","exp":1}').rstrip(b"=").decode()
    (account / "token").write_text(f"{header}.{forged}.{signature}")
    access = ClusterAccess(in_cluster=True, namespace=module_namespace, service_account=account, look_again_seconds=60)
    async with Api(access, limits=PATIENT) as api:
        with pytest.raises(ApiFailure) as failure:
            await api.get_pod("any")
        assert failure.value.status == 401
        (account / "token").write_text(real_token)
        assert await api.get_pod("any") is None
        await proxy.change_certificate()
        assert await api.get_pod("any") is None
        with pytest.raises(ApiFailure) as failure:
            await api.create_job(b'{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"x"}}')
        assert failure.value.status == 403


async def test_the_namespace_is_the_pods_own(account: Path) -> None:
    (account / "token").write_text("t")
    (account / "namespace").write_text("mine")
    async with Api(ClusterAccess(service_account=account)) as api:
        assert api.namespace == "mine"
