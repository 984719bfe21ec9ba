"""`python -m tests.cluster build|up|down|status`."""

from __future__ import annotations

import sys
import time

from tests.cluster import k3s, one_node, users
from tests.cluster.build import BuildError, build_programs
from tests.cluster.folders import locked, state_folder
from tests.cluster.images import build_base_images
from tests.cluster.leftovers import CleaningError
from tests.cluster.lookup import NoClusterError, lacks_for_starting, usable_cluster
from tests.cluster.one_node import StartError


def main(arguments: list[str]) -> int:
    """The exit code; what a person can do about a failure is said in a sentence."""
    commands = {"build": build, "up": up, "down": down, "status": status}
    if len(arguments) != 1 or arguments[0] not in commands:
        print("usage: python -m tests.cluster build|up|down|status", file=sys.stderr)
        return 2
    try:
        commands[arguments[0]]()
    except (BuildError, CleaningError, NoClusterError, StartError) as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


def build() -> None:
    build_programs()
    build_base_images()


def up() -> None:
    """Starts a cluster that stays until `down`, or keeps the one that runs."""
    lacking = lacks_for_starting()
    if lacking is not None:
        raise NoClusterError(lacking)
    build()
    state = state_folder()
    begun = time.monotonic()
    with locked(state):
        cluster = usable_cluster(state) or one_node.start(state)
        users.keep(state, True)
    print(f"ready after {time.monotonic() - begun:.1f} s; pods reach this machine at {cluster.host_address}")
    print(f"  export KUBECONFIG={cluster.kubeconfig}")
    print(f"  {cluster.kubectl_path} get nodes")


def down() -> None:
    state = state_folder()
    with locked(state):
        users.keep(state, False)
        k3s.stop(state)
        one_node.stop(state)


def status() -> None:
    found = one_node.running(state_folder())
    print(f"up: KUBECONFIG={found.kubeconfig}" if found else "down")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
