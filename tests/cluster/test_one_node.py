"""What every test of the engine relies on, seen on the cluster itself."""

from __future__ import annotations

import pytest

from tests.cluster.facts import Cluster

pytestmark = pytest.mark.cluster


def test_the_node_is_ready(cluster: Cluster, namespace: str) -> None:
    (node,) = cluster.get("nodes")["items"]
    assert {"type": "Ready", "status": "True"}.items() <= node["status"]["conditions"][-1].items()
