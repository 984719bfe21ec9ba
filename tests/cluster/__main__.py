"""`python -m tests.cluster build|up|down|status`."""

from __future__ import annotations

import sys
import time

from tests.cluster import k3s, one_node, users
from tests.cluster.build import build_programs
from tests.cluster.folders import locked, state_folder
from tests.cluster.images import build_base_images
from tests.cluster.lookup import usable_cluster


def main(arguments: list[str]) -> int:
    state = state_folder()
    match arguments:
        case ["build"]:
            build_programs()
            build_base_images()
        case ["up"]:
            build_programs()
            build_base_images()
            begun = time.monotonic()
            with locked(state):
                cluster = usable_cluster(state) or one_node.start(state)
                users.keep(state, True)
            print(f"ready after {time.monotonic() - begun:.1f} s; pods reach this machine at {cluster.host_address}")
            print(f"  export KUBECONFIG={cluster.kubeconfig}")
            print(f"  {cluster.kubectl_path} get nodes")
        case ["down"]:
            with locked(state):
                users.keep(state, False)
                k3s.stop(state)
                one_node.stop(state)
        case ["status"]:
            found = one_node.running(state)
            print(f"up: KUBECONFIG={found.kubeconfig}" if found else "down")
        case _:
            print("usage: python -m tests.cluster build|up|down|status", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
