"""What every test of the engine relies on, seen on the cluster itself, without any part of Invoker."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.cluster.facts import Cluster, KubectlError
from tests.cluster.fixtures import make_namespace, remove_namespace
from tests.cluster.image_builder import build_image, sources
from tests.cluster.network import bridge_name

pytestmark = pytest.mark.cluster

RESTRICTED_POD = {
    "restartPolicy": "Never",
    "automountServiceAccountToken": False,
    "terminationGracePeriodSeconds": 1,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}
RESTRICTED_CONTAINER = {
    "name": "function",
    "image": "localhost/busybox:1",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}


def pod(name: str, script: str = "", **container: Any) -> dict[str, Any]:
    """A pod that Pod Security `restricted` admits; `container` overrides."""
    command = {"command": ["sh", "-c", script]} if script else {}
    spec = RESTRICTED_POD | {"containers": [RESTRICTED_CONTAINER | command | container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def with_volume(one: dict[str, Any]) -> dict[str, Any]:
    """The pod with an ephemeral volume at /work."""
    claim = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}}
    mounted = copy.deepcopy(one)
    mounted["spec"]["volumes"] = [{"name": "work", "ephemeral": {"volumeClaimTemplate": claim}}]
    mounted["spec"]["containers"][0]["volumeMounts"] = [{"name": "work", "mountPath": "/work"}]
    return mounted


def when(look: Callable[[], Any], what: str, within: float = 150) -> Any:
    """The first answer that is something; what is not there yet is asked for again."""
    deadline = time.monotonic() + within
    while True:
        try:
            answer = look()
        except KubectlError:
            answer = None
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what} did not come within {within:g} s"
        time.sleep(0.05)


def ended(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """The terminated state of the pod's container."""

    def look() -> Any:
        statuses = cluster.get("pod", name, "-n", namespace)["status"].get("containerStatuses", [])
        return statuses and statuses[0]["state"].get("terminated")

    found: dict[str, Any] = when(look, f"the end of pod {name}")
    return found


def test_a_pod_of_another_user_runs_with_a_read_only_root(cluster: Cluster, namespace: str) -> None:
    script = "id -u; id -g; touch /file 2>&1; head -c 5 /dev/zero | wc -c"
    cluster.apply(pod("one", script), namespace=namespace)
    assert ended(cluster, namespace, "one")["exitCode"] == 0
    printed = cluster.kubectl("logs", "one", "-n", namespace).split("\n")
    assert printed[:2] == ["10001", "10001"]
    assert "Read-only file system" in printed[2]
    assert printed[3] == "5"


def test_pod_security_refuses_what_is_not_restricted(cluster: Cluster, namespace: str) -> None:
    spec = {"containers": [{"name": "one", "image": "localhost/busybox:1"}]}
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        cluster.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}, namespace=namespace
        )


def test_an_ephemeral_volume_is_bound_written_and_freed(cluster: Cluster, namespace: str) -> None:
    script = "echo kept > /work/file && cat /work/file"
    cluster.apply(with_volume(pod("one", script)), namespace=namespace)
    assert ended(cluster, namespace, "one")["exitCode"] == 0
    assert cluster.kubectl("logs", "one", "-n", namespace) == "kept\n"
    (claim_there,) = cluster.get("pvc", "-n", namespace)["items"]
    assert claim_there["status"]["phase"] == "Bound"

    cluster.kubectl("delete", "pod", "one", "-n", namespace)
    when(lambda: not cluster.get("pvc", "-n", namespace)["items"], "the end of the claim")
    volume = claim_there["spec"]["volumeName"]
    when(lambda: volume not in cluster.kubectl("get", "pv", "-o", "name"), "the end of the volume")


def test_a_volume_is_not_for_pods_of_another_group(cluster: Cluster, namespace: str) -> None:
    if cluster.kind != "one-node":
        pytest.skip("what others may do with a volume is the given cluster's own")
    stranger = with_volume(pod("one", "touch /work/file"))
    stranger["spec"]["securityContext"] |= {"runAsGroup": 10002, "fsGroup": 10002}
    cluster.apply(stranger, namespace=namespace)
    assert ended(cluster, namespace, "one")["exitCode"] == 1


def test_a_job_is_removed_after_its_time_and_the_audit_log_has_its_uid(cluster: Cluster, namespace: str) -> None:
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "short"},
        "spec": {"ttlSecondsAfterFinished": 0, "template": {"spec": pod("", "true")["spec"]}},
    }
    # Its UID by the answer to its creation: a moment later it may be gone.
    uid = cluster.kubectl("create", "-n", namespace, "-f", "-", "-o=jsonpath={.metadata.uid}", given=json.dumps(job))
    when(lambda: not cluster.get("jobs", "-n", namespace)["items"], "the end of the Job")
    if cluster.audit_log is not None:
        created = [line for line in audited(cluster.audit_log, namespace) if line["verb"] == "create"]
        assert [line["responseObject"]["metadata"]["uid"] for line in created if "responseObject" in line] == [uid]
        assert {"jobs", "pods"} <= {line["objectRef"]["resource"] for line in created}


def audited(log: Path, namespace: str) -> Iterator[dict[str, Any]]:
    """The requests of one namespace."""
    with log.open() as lines:
        for line in lines:
            # What is being written now has no end yet.
            entry: dict[str, Any] = json.loads(line) if namespace in line and line.endswith("\n") else {}
            if entry.get("objectRef", {}).get("namespace") == namespace:
                yield entry


def test_the_log_is_to_be_had_without_what_went_to_stderr(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("one", "echo to stdout; echo to stderr >&2"), namespace=namespace)
    ended(cluster, namespace, "one")
    path = f"/api/v1/namespaces/{namespace}/pods/one/log?container=function"
    assert sorted(cluster.kubectl("get", "--raw", path).splitlines()) == ["to stderr", "to stdout"]
    assert cluster.kubectl("get", "--raw", f"{path}&stream=Stdout") == "to stdout\n"


def test_a_pod_reaches_a_server_on_this_machine(cluster: Cluster, namespace: str) -> None:
    class Greeting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"hello {self.path}\n".encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer((cluster.host_address, 0), Greeting) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://{cluster.host_address}:{server.server_port}/from-a-pod"
        reads = f"import urllib.request as u; print(u.urlopen({address!r}).read().decode(), end='')"
        cluster.apply(pod("one", image="localhost/base:1", command=["python", "-c", reads]), namespace=namespace)
        code = ended(cluster, namespace, "one")["exitCode"]
        server.shutdown()
    assert cluster.kubectl("logs", "one", "-n", namespace) == "hello /from-a-pod\n"
    assert code == 0


SERVER = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080, bind='0.0.0.0')"
CALLER = """
import json, socket, ssl, time, urllib.request as u

def asked(url, **more):
    deadline = time.monotonic() + 60  # a Service needs a moment until its rules are there
    while True:
        try:
            return u.urlopen(url, timeout=2, **more).status
        except OSError as trouble:
            if time.monotonic() > deadline:
                return str(trouble)
            time.sleep(0.1)

place = "/var/run/secrets/kubernetes.io/serviceaccount/"
token, trust = open(place + "token").read(), ssl.create_default_context(cafile=place + "ca.crt")
api = u.Request("https://kubernetes.default.svc/version", headers={"Authorization": "Bearer " + token})
answers = {
    "short": asked("http://greeter/"),
    "whole": asked("http://greeter.NAMESPACE.svc.cluster.local/"),
    "api": asked(api, context=trust),
}
took = []
for _ in range(3):  # one of them may be held up by something else; without an answer all take as long as it is waited
    begun = time.monotonic()
    try:
        answers["nobody"] = socket.gethostbyname("nobody.example.org")
    except OSError as trouble:
        answers["nobody"] = type(trouble).__name__
    took.append(time.monotonic() - begun)
answers["said at once"] = min(took) < 5
print(json.dumps(answers))
"""


def test_a_service_is_reached_by_its_name_and_so_is_the_api_server(cluster: Cluster, namespace: str) -> None:
    served = pod("server", image="localhost/base:1", command=["python", "-c", SERVER])
    served["metadata"]["labels"] = {"app": "greeter"}
    service = {"selector": {"app": "greeter"}, "ports": [{"port": 80, "targetPort": 8080}]}
    caller = pod("caller", image="localhost/base:1", command=["python", "-c", CALLER.replace("NAMESPACE", namespace)])
    caller["spec"]["automountServiceAccountToken"] = True
    cluster.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "greeter"}, "spec": service},
        served, caller, namespace=namespace,
    )  # fmt: skip
    ended(cluster, namespace, "caller")
    answers = json.loads(cluster.kubectl("logs", "caller", "-n", namespace))
    assert answers == {"short": 200, "whole": 200, "api": 200, "nobody": "gaierror", "said at once": True}


def test_pods_that_come_and_go_do_not_change_the_address_of_this_machine(cluster: Cluster) -> None:
    """Or the others could not reach it for up to a minute: 3 is Linux' word for "given, and kept" (NET_ADDR_SET)."""
    if cluster.kind != "one-node" or cluster.state is None:
        pytest.skip("the bridge of a given cluster is not ours")
    bridge = Path("/sys/class/net", bridge_name(cluster.state))
    assert (bridge / "addr_assign_type").read_text().strip() == "3"


def test_too_much_memory_is_reported_as_such(cluster: Cluster, namespace: str) -> None:
    eats = "held = []\nwhile True: held.append(bytearray(b'x' * 1_000_000))"
    limited = {"limits": {"memory": "32Mi", "cpu": "1"}}
    one = pod("one", image="localhost/base:1", command=["python", "-c", eats], resources=limited)
    cluster.apply(one, namespace=namespace)
    state = ended(cluster, namespace, "one")
    assert (state["reason"], state["exitCode"]) == ("OOMKilled", 137)


def test_an_image_without_a_shell_runs(cluster: Cluster, namespace: str) -> None:
    plain = pod("one", image="localhost/plain:1", env=[{"name": "PAYLOAD", "value": "c3RyZXNzZWQ="}])
    cluster.apply(plain, namespace=namespace)
    assert ended(cluster, namespace, "one")["exitCode"] == 0
    assert cluster.kubectl("logs", "one", "-n", namespace) == "desserts"


def test_an_image_of_a_dockerfile_runs(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        'ARG BASE=scratch\nFROM ${BASE}\nCOPY said /said\nENTRYPOINT ["cat", "/said"]\n'
    )
    (tmp_path / "said").write_text(f"from the image of {namespace}\n")
    tag = "localhost/said:test"
    build_image(cluster, tmp_path / "Dockerfile", tmp_path, tag, {"BASE": "localhost/busybox:1"})
    cluster.apply(pod("one", image=tag), namespace=namespace)
    assert ended(cluster, namespace, "one")["exitCode"] == 0
    assert cluster.kubectl("logs", "one", "-n", namespace) == f"from the image of {namespace}\n"


def test_a_namespace_goes_although_a_finalizer_holds_its_job(cluster: Cluster) -> None:
    name = make_namespace(cluster)
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "held", "finalizers": ["invoker.dev/result"]},
        "spec": {"template": {"spec": pod("", "sleep 600")["spec"]}},
    }
    cluster.apply(job, namespace=name)
    remove_namespace(cluster, name)
    when(lambda: name not in cluster.kubectl("get", "namespaces", "-o", "name"), "the end of the namespace")


def test_what_a_dockerfile_copies_is_what_its_image_depends_on() -> None:
    text = """\
FROM x
COPY --chown=1:1 a b/*.py /to/
ADD c \\
  d /
COPY --from=0 /other /
COPY ["e f", "/"]
RUN cp x y
"""
    assert sources(text) == ["a", "b/*.py", "c", "d", "e f"]
    assert sources("ARG what\nCOPY ${what} /\n") == ["."]
