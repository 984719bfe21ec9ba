"""The command line on a cluster, as a user has it: dev, demo, render, and what is said when something is missing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.acceptance.cli_desk import Desk, until
from tests.cluster.account import Right, make_account
from tests.cluster.engine_world import PYTHON_IMAGE, build_python_image
from tests.cluster.facts import Cluster
from tests.docs.transcript import difference, steps_of
from tests.ports import lasting_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "functions" / "samples"
HELLO = (
    "def handle(event, context):\n    print('greeting', flush=True)\n    return f\"Hello, {event['data']['name']}!\"\n"
)
TTL_SECONDS = 60
"""For so long Jobs of functions that say nothing about it stay after their release."""
SLEEPER = "import time\n\n\ndef handle(event, context):\n    print('asleep', flush=True)\n    time.sleep(300)\n"
EVIL = [
    "1e3", "0o7", "0x1f", "12:30", "y", "no", "null", "~", "", " ", "}}", "$(HOME)", "$$", "- a", "a: b", "#", '"', "'",
    "\\", "a\nb", "\n", "\ttab", "---\napiVersion: v1", "é \u2028 \U0001f600", "x" * 5000, "*", "&a", "!!int 1", "%",
    "@", "`", "|", ">", "-", "?", ":", "=", "<<", ".inf", "2001-01-01", "+1", "1_000", "\x85", "\ufeff", "trailing ",
    "a \n b\n\n", "\r\n", "NaN", "Infinity",
]  # fmt: skip


@pytest.fixture(scope="module")
def images(cluster: Cluster) -> None:
    build_python_image(cluster)


@pytest.fixture
def desk(cluster: Cluster, namespace: str, images: None, tmp_path: Path) -> Desk:
    environ = {
        "INVOKER_RUNTIME_IMAGES": f"python={PYTHON_IMAGE}",
        "INVOKER_IMAGE_PULL_POLICY": "Never",
        "INVOKER_KUBECONFIG": str(cluster.kubeconfig),
        "INVOKER_KUBE_NAMESPACE": namespace,
        "TMPDIR": str(tmp_path),
    }
    return Desk(tmp_path, environ)


@pytest.fixture
def on_cluster(cluster: Cluster) -> tuple[str, ...]:
    return ("--engine", "kubernetes", "--http-host", cluster.host_address)


def left(cluster: Cluster, namespace: str) -> list[str]:
    """Everything in the namespace that is not Kubernetes' own."""
    found = cluster.get("jobs,pods,pvc,configmaps", "-n", namespace)["items"]
    return [
        f"{one['kind']}/{one['metadata']['name']}" for one in found if one["metadata"]["name"] != "kube-root-ca.crt"
    ]


def is_empty(cluster: Cluster, namespace: str) -> Callable[[], bool]:
    return lambda: left(cluster, namespace) == []


def test_dev_runs_functions_as_jobs(cluster: Cluster, namespace: str, desk: Desk, on_cluster: tuple[str, ...]) -> None:
    """As the account of deploy/rbac.yaml: its Role is enough."""
    account = make_account(cluster, namespace, desk.folder / "account")
    desk.function("hello", HELLO)
    desk.function("sleeper", SLEEPER)
    with desk.dev(*on_cluster, "--kubeconfig", str(account.kubeconfig)) as facts:
        assert facts["http_url"].startswith(f"http://{cluster.host_address}:")
        assert facts["nats_url"].startswith("nats://127.0.0.1:")
        said = desk.run("publish", "hello", '{"name": "Ada"}', "--wait", "90", timeout=120)
        assert (said.code, said.out) == (0, "Hello, Ada!"), said.err
        assert desk.run("result", "@latest").out == "Hello, Ada!"
        document = desk.run("result", "@latest", "-o", "json").json
        job = json.dumps(document)
        assert f'"job": "{namespace}/dev-' in job
        _cancel_and_look_at_the_log(desk)
    assert "stopped; state kept" in desk.err()
    assert "Jobs that run go on" in desk.err()
    assert f"kubernetes   Jobs in namespace {namespace}" in desk.err()


def _cancel_and_look_at_the_log(desk: Desk) -> None:
    assert desk.run("publish", "sleeper", "{}").code == 0
    until(lambda: "asleep" in desk.run("runs", "logs", "@latest").out, within=90, what="the log of a running pod")
    assert desk.run("runs", "cancel", "@latest").code == 0
    done = desk.run("result", "@latest", "--wait", "60", "-o", "json", timeout=90)
    assert '"cancelled"' in done.out


def test_a_job_that_outlived_its_dev_is_answered_by_the_next(
    cluster: Cluster, namespace: str, desk: Desk, on_cluster: tuple[str, ...]
) -> None:
    code = "import time\n\n\ndef handle(event, context):\n    time.sleep(8)\n    return 'late'\n"
    desk.function("slow", code, more=["ttlSecondsAfterFinished: 600"])  # it is looked at afterwards
    port = ("--http-port", str(lasting_port(cluster.host_address)))
    with desk.dev(*on_cluster, *port):
        key = desk.state / "run-token.key"
        assert key.stat().st_mode & 0o777 == 0o600, "for its owner only"
        assert len(key.read_text().strip()) >= 32
        assert desk.run("publish", "slow", "{}").code == 0
        until(lambda: _running(cluster, namespace), within=90, what="a running pod")
    with desk.dev(*on_cluster, *port):
        done = desk.run("result", "@latest", "--wait", "90", timeout=120)
        assert done.out == "late", done.err
    (job,) = cluster.get("jobs", "-n", namespace)["items"]
    assert len(cluster.get("pods", "-n", namespace)["items"]) <= 1, "one pod, not one a dev"
    assert job["metadata"]["labels"]["invoker.dev/instance"].startswith("dev-")


def _running(cluster: Cluster, namespace: str) -> bool:
    pods = cluster.get("pods", "-n", namespace)["items"]
    return any(pod["status"].get("phase") == "Running" for pod in pods)


def test_fresh_removes_what_was_made_in_the_cluster(
    cluster: Cluster, namespace: str, desk: Desk, on_cluster: tuple[str, ...]
) -> None:
    desk.function("sleeper", SLEEPER)
    with desk.dev(*on_cluster):
        assert desk.run("publish", "sleeper", "{}").code == 0
        # Its code is there before it: a dev that ends in between makes no Job any more.
        until(lambda: any(one.startswith("Job/") for one in left(cluster, namespace)), what="a Job")
    with desk.dev(*on_cluster, "--fresh"):
        assert "removed 1 Job and 1 ConfigMap" in desk.err()
        until(is_empty(cluster, namespace), what="an empty namespace")


def test_the_demo_of_the_readme_ends_with_0_and_leaves_nothing(cluster: Cluster, namespace: str, desk: Desk) -> None:
    (step,) = steps_of(ROOT / "README.md", on_cluster=True)
    command = step.command.replace("images.example.org/team/invoker-python:0.1.0", PYTHON_IMAGE)
    command = command.replace("namespace jobs", f"namespace {namespace}").replace("10.0.0.5", cluster.host_address)
    begun = time.monotonic()
    ran = desk.shell(command, timeout=350)
    assert ran.code == 0, ran.err
    expected = [line.replace("namespace jobs", f"namespace {namespace}") for line in step.expected]
    removed = int(re.findall(r"removed (\d+) Jobs? and 3 ConfigMaps", ran.err)[0])
    if time.monotonic() - begun > TTL_SECONDS:  # on a busy node the first ones are gone by themselves when the last end
        expected = [line.replace("removed 8 Jobs", "removed … Job…") for line in expected]
    else:
        assert removed == 8
    first, *others = expected
    assert difference([first, "…"], ran.err) is None, ran.err
    assert difference(others, ran.out + ran.err) is None, ran.out + ran.err
    assert len([line for line in ran.lines if line.startswith("✓ ")]) == 8
    assert len([line for line in ran.lines if f" Job {namespace}/demo-" in line]) == 8
    assert ran.lines[-1].endswith("8 runs, 1,058 rows")
    until(is_empty(cluster, namespace), what="an empty namespace")
    assert [one.name for one in desk.folder.iterdir() if one.name.startswith("invoker-demo-")] == []


def test_a_demo_that_does_not_end_says_where_to_look(
    cluster: Cluster, namespace: str, desk: Desk, on_cluster: tuple[str, ...]
) -> None:
    """The mistake that a first run makes: an image that nobody answers for."""
    desk.environ |= {"INVOKER_RUNTIME_IMAGES": "python=localhost:9/nothing:1", "INVOKER_IMAGE_PULL_POLICY": "Always"}
    ran = desk.run("demo", *on_cluster, "--wait", "5", timeout=90)
    assert ran.code == 5, ran.err
    assert "its pods say more: kubectl describe pods --selector app.kubernetes.io/managed-by=invoker" in ran.err
    assert ran.err.rstrip().endswith("--wait 5 --keep")
    until(is_empty(cluster, namespace), what="an empty namespace")


def test_a_file_of_this_machine_is_no_source_for_pods(desk: Desk, on_cluster: tuple[str, ...]) -> None:
    (desk.folder / "table.csv").write_text("a\n1\n")
    ran = desk.run("demo", *on_cluster, "table.csv")
    assert (ran.code, "no pod sees table.csv" in ran.err) == (6, True), ran.err


@pytest.mark.parametrize("name", ["collect", "uncompress", "convert"])
def test_what_is_rendered_is_accepted_under_pod_security(
    cluster: Cluster, namespace: str, desk: Desk, name: str
) -> None:
    text = desk.run("functions", "render", name, "--catalog", str(SAMPLES)).out
    assert [one["kind"] for one in yaml.safe_load_all(text)] == ["ConfigMap", "Job"]
    told = cluster.kubectl("create", "--dry-run=server", "-f", "-", "-n", namespace, given=text)
    assert told.count("created (server dry run)") == 2
    assert "would violate PodSecurity" not in told
    assert left(cluster, namespace) == []


def _yaml(document: object) -> str:
    """JSON with YAML's own escapes, which know no surrogates and take no line separators."""
    text = json.dumps(document, ensure_ascii=False)
    return "".join(one if " " <= one <= "~" else f"\\U{ord(one):08x}" for one in text)


def test_kubectl_reads_evil_values_as_they_were_written(cluster: Cluster, namespace: str, desk: Desk) -> None:
    variables = [{"name": f"V{number}", "value": text} for number, text in enumerate(EVIL)]
    desk.function("evil", HELLO, more=[f"env: {_yaml(variables)}"])
    ran = desk.run("functions", "render", "evil")
    assert ran.code == 0, ran.err
    text = ran.out.partition("\n---\n")[2]
    told = cluster.kubectl("create", "--dry-run=server", "-f", "-", "-n", namespace, "-o", "json", given=text)
    job = json.loads(told)
    env = {one["name"]: one.get("value", "") for one in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert [env[f"V{number}"] for number in range(len(EVIL))] == [text.replace("$", "$$") for text in EVIL]


def test_the_api_server_is_asked(namespace: str, desk: Desk) -> None:
    ran = desk.run("functions", "render", "convert", "--catalog", str(SAMPLES), "--server-dry-run", "-o", "json")
    assert ran.code == 0, ran.err
    (job,) = ran.json["items"]
    assert job["metadata"]["namespace"] == namespace
    assert job["metadata"]["uid"]
    assert job["spec"]["template"]["spec"]["dnsPolicy"] == "ClusterFirst", "a default of the API server"


def test_a_refusal_of_the_api_server_is_told_in_words(cluster: Cluster, namespace: str, desk: Desk) -> None:
    desk.function("greedy", HELLO, more=["resources: {requests: {cpu: 2}, limits: {cpu: 1}}"])
    ran = desk.run("functions", "render", "greedy", "--server-dry-run")
    assert ran.code == 6, ran.out
    assert "the Job of greedy: Kubernetes refused it: " in ran.err
    assert "less than or equal to cpu limit" in ran.err
    assert ran.out == ""


def test_a_namespace_that_is_not_there(desk: Desk, on_cluster: tuple[str, ...]) -> None:
    desk.function("hello", HELLO)
    ran = desk.run("dev", *on_cluster, "--namespace", "nowhere")
    assert ran.code == 2
    assert "INVOKER_KUBE_NAMESPACE: there is no namespace nowhere" in ran.err
    assert "try: kubectl create namespace nowhere" in ran.err


@pytest.mark.parametrize("right", [Right("jobs", "create"), Right("jobs", "patch"), Right("pods/log", "get")], ids=str)
def test_a_right_that_is_missing(
    cluster: Cluster, namespace: str, desk: Desk, on_cluster: tuple[str, ...], right: Right
) -> None:
    desk.function("hello", HELLO)
    account = make_account(cluster, namespace, desk.folder / "account", without=right)
    ran = desk.run("dev", *on_cluster, "--kubeconfig", str(account.kubeconfig))
    assert ran.code == 2, ran.err
    assert f"Invoker's account may not: {right} in namespace {namespace}" in ran.err
