"""The fixtures of every test that needs Kubernetes: `cluster` (one for the whole session) and `namespace` (one a test).

A pytest plugin, named in `tests/conftest.py`.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Generator, Iterator

import pytest

from tests.cluster.facts import Cluster, KubectlError
from tests.cluster.folders import state_folder
from tests.cluster.lookup import NoClusterError, cluster_for_session, leave_cluster
from tests.cluster.one_node import complaints
from tests.skips import without

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """A cluster that is ready, shared with every other test of the session: work in a namespace of your own."""
    try:
        return cluster_for_session()
    except NoClusterError as reason:
        without(str(reason), needed_if="INVOKER_REQUIRE_CLUSTER")


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A new namespace under Pod Security `restricted`, for one test."""
    name = make_namespace(cluster)
    yield name
    remove_namespace(cluster, name)


@pytest.fixture(scope="module")
def module_namespace(cluster: Cluster) -> Iterator[str]:
    """A new namespace under Pod Security `restricted`, for the tests of one module."""
    name = make_namespace(cluster)
    yield name
    remove_namespace(cluster, name)


def make_namespace(cluster: Cluster) -> str:
    """A namespace of a random name with all that Kubernetes itself puts into one: pods can be made at once, and what is
    there later and was not at first is somebody's."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    for own in ("serviceaccount/default", "configmap/kube-root-ca.crt"):
        cluster.kubectl("wait", "--namespace", name, "--for=create", own, "--timeout=150s")
    return name


def remove_namespace(cluster: Cluster, name: str) -> None:
    """Begins the end of a namespace and sees to it that it comes: pods end soon, what holds a Job back is taken off.

    Does not wait for it.
    """
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
    # Not with the 30 s that a pod may ask for: what a test left asleep would fill the node.
    cluster.kubectl("delete", "pods", "--all", "--namespace", name, "--grace-period=1", "--wait=false")
    for item in cluster.get("jobs,pods", "--namespace", name)["items"]:
        if item["metadata"].get("finalizers"):
            _drop_finalizers(cluster, name, item["kind"], item["metadata"]["name"])


def _drop_finalizers(cluster: Cluster, namespace: str, kind: str, name: str) -> None:
    patch = json.dumps({"metadata": {"finalizers": None}})
    try:
        cluster.kubectl("patch", kind, name, "--namespace", namespace, "--type=merge", "-p", patch)
    except KubectlError as failure:
        if "NotFound" not in str(failure):  # its end came first
            raise


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        leave_cluster()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    """What the components said, where a test of the cluster failed in CI and nobody can look there any more. Before
    pytest tells of the failures: its own words are the last ones."""
    broken = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
    if os.environ.get("INVOKER_REQUIRE_CLUSTER") == "1" and any("cluster" in report.keywords for report in broken):
        terminalreporter.section("the cluster's components")
        terminalreporter.write_line(complaints(state_folder()))
    return (yield)
