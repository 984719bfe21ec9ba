"""A cluster seen from a desk: what is said of one that does not answer, is another one, or lacks something."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from pathlib import Path

import pytest

from invoker.cli.dev_cluster import check_options
from invoker.errors import EngineUnavailableError, SettingsError
from tests.cluster.certificates import Identity, make_certificates
from trigger.cluster import Place, look_at, problem_of
from trigger.kubernetes_engine.failures import ApiFailure
from trigger.kubernetes_settings import KubernetesSettings

PLACE = Place("jobs", "https://api.example.com")
FORBIDDEN = (
    'jobs.batch is forbidden: User "who" cannot create resource "jobs" in API group "batch" in the namespace "jobs"'
)


def kubeconfig(folder: Path, server: str) -> KubernetesSettings:
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    file = folder / "kubeconfig"
    file.write_text(json.dumps(content))
    return KubernetesSettings(kubeconfig=file)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for here is on this machine, or nowhere."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_nobody_answers_and_that_is_said_soon(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = f"https://127.0.0.1:{listening.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(EngineUnavailableError) as unavailable:
        await look_at(kubeconfig(tmp_path, server))
    assert time.monotonic() - began < 30, "a controller has more patience"
    assert unavailable.value.message == f"the API server at {server} does not answer: Connection refused"
    assert unavailable.value.hint
    assert "--kubeconfig" in unavailable.value.hint


async def test_a_host_that_has_no_address(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match=r"does not answer: .*[Nn]ame"):
        await look_at(kubeconfig(tmp_path, "https://no-such-host.invalid:6443"))


async def test_a_server_that_another_authority_vouches_for(tmp_path: Path) -> None:
    make_certificates(tmp_path / "authority", (Identity("server", "server", ("people",)),))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "authority" / "server.crt", tmp_path / "authority" / "server.key")
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        with pytest.raises(SettingsError) as refused:
            await look_at(kubeconfig(tmp_path, address))
    assert refused.value.message.startswith(f"INVOKER_KUBECONFIG: {address} is not who the kubeconfig expects: ")
    assert "unable to get local issuer certificate" in refused.value.message
    assert "ssl:" not in refused.value.message


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (ApiFailure(401, "Unauthorized"), SettingsError, "does not accept the credentials"),
        (ApiFailure(503, "ServiceUnavailable", "etcd"), EngineUnavailableError, "failed with 503: etcd"),
        (ApiFailure(404, "NotFound", 'namespaces "jobs" not found'), SettingsError, "there is no namespace jobs"),
        (ApiFailure(403, "Forbidden", FORBIDDEN), SettingsError, "may not: create jobs in namespace jobs"),
    ],
)
def test_what_is_missing_is_named(failure: ApiFailure, kind: type[Exception], words: str) -> None:
    problem = problem_of({"create jobs": failure}, PLACE)
    assert isinstance(problem, kind)
    assert words in str(problem)


def test_a_job_that_is_refused_for_what_it_is_says_nothing_about_the_cluster() -> None:
    denied = ApiFailure(403, "Forbidden", "exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1")
    assert problem_of({"create jobs": denied, "get jobs": ApiFailure(422, "Invalid", "no")}, PLACE) is None


def test_options_of_a_cluster_need_the_engine_that_looks_at_it() -> None:
    check_options("kubernetes", {"kube_namespace": "jobs"})
    check_options("local", {})
    with pytest.raises(SettingsError, match="--kube-context and --namespace: only --engine kubernetes") as refused:
        check_options("local", {"kube_context": "c", "kube_namespace": "jobs"})
    assert refused.value.hint == "add --engine kubernetes"
