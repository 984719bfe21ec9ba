"""Which cluster the tests get: a given one, k3s where Docker runs, one that is up, a new one, or none with a reason."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.cluster import k3s, one_node, users
from tests.cluster.build import are_programs_built
from tests.cluster.facts import Cluster
from tests.cluster.folders import locked, state_folder
from tests.cluster.images import BASE_IMAGES, are_base_images_built

NEEDS_ROOT = "a Kubernetes for the tests needs root, or INVOKER_TEST_KUBECONFIG"


class NoClusterError(Exception):
    """There is none to be had here; the text says why and what to do."""


def cluster_for_session() -> Cluster:
    """The cluster of this pytest session, started when there is none; all workers get the same.

    `leave_cluster` in the session's main process lets go of it. Raises `NoClusterError`, and `StartError` when this
    machine has everything that is needed and the cluster does not start all the same.
    """
    given = given_cluster()
    if given is not None:
        return given
    if os.geteuid() != 0 and not k3s.is_possible():
        raise NoClusterError(NEEDS_ROOT)
    state = state_folder()
    with locked(state):
        found = _k3s(state) or usable_cluster(state) or _started(state)
        users.add(state, users.session_process())
        return found


def _k3s(state: Path) -> Cluster | None:
    if not k3s.is_possible():
        return None
    try:
        return k3s.running(state) or k3s.start(state)
    except k3s.K3sError as error:
        print(f"{error}; going on without it", file=sys.stderr)
        return None


def _started(state: Path) -> Cluster:
    reason = reason_against_starting()
    if reason is not None:
        raise NoClusterError(reason)
    return one_node.start(state)


def usable_cluster(state: Path) -> Cluster | None:
    """The one that is up, outdated or not while others use it. Call it under the folder's lock."""
    if one_node.is_outdated(state) and not users.is_wanted(state):
        return None
    return one_node.running(state)


def leave_cluster() -> None:
    """The session is over: the last one that leaves ends the cluster, unless it was started to stay."""
    state = state_folder()
    if not (state / "users").is_dir():
        return
    with locked(state):
        if users.remove(state, users.session_process()) and not users.is_wanted(state):
            k3s.stop(state)
            one_node.stop(state)


def given_cluster() -> Cluster | None:
    """The one of INVOKER_TEST_KUBECONFIG. Its images must be there under our names, nothing is imported."""
    kubeconfig = os.environ.get("INVOKER_TEST_KUBECONFIG")
    if not kubeconfig:
        return None
    address = os.environ.get("INVOKER_TEST_HOST_ADDRESS")
    if not address:
        raise NoClusterError(
            "INVOKER_TEST_KUBECONFIG is set, INVOKER_TEST_HOST_ADDRESS is not: "
            "the address at which pods of that cluster reach this machine"
        )
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise NoClusterError("INVOKER_TEST_KUBECONFIG is set, but there is no kubectl on the PATH")
    return Cluster(Path(kubeconfig), address, Path(kubectl), BASE_IMAGES)


def reason_against_starting() -> str | None:
    """Why a cluster cannot be started here and now, or None when it can."""
    lacking = lacks_for_starting()
    if lacking is None and not (are_programs_built() and are_base_images_built()):
        return "Kubernetes for the tests is not built here (8 minutes, once); try: make cluster-build"
    return lacking


def lacks_for_starting() -> str | None:
    """What this machine lacks, whatever is built on it, or None."""
    if os.geteuid() != 0:
        return NEEDS_ROOT
    missing = [name for name in ("runc", "ip", "nft", "nsenter", "unshare", "openssl") if shutil.which(name) is None]
    if not missing:
        return None
    packages = "runc iproute2 nftables util-linux openssl"
    return f"a Kubernetes for the tests needs {', '.join(missing)}; try: apt-get install {packages}"
