"""Where a test of the whole pipeline runs: on this machine, or in a Kubernetes. The fixture `place` gives one after the
other, and the test is the same for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.account import make_account
from tests.cluster.audit import created_claims
from tests.cluster.controllers import KEY
from tests.cluster.engine_world import PYTHON_IMAGE, build_python_image
from tests.cluster.facts import Cluster
from tests.conftest import eventually


@dataclass(frozen=True)
class Place:
    """`settings` make a controller run its functions there. `is_slow`: a run takes seconds, so a few must do."""

    engine: str = "local"
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_slow: bool = False

    async def proves_volumes(self, runs: int) -> None:
        """So many runs that declare a volume had one of their own, and none is left: folders of this engine go with
        their run, which its own tests show."""


@dataclass(frozen=True)
class KubernetesPlace(Place):
    cluster: Cluster | None = None
    namespace: str = ""

    async def proves_volumes(self, runs: int) -> None:
        cluster, where = self.cluster, self.namespace
        assert cluster is not None

        async def freed() -> bool:
            return not (await asyncio.to_thread(cluster.get, "pvc", "-n", where))["items"]

        await eventually(freed, within=60, what="the end of all claims")
        if cluster.audit_log is not None:
            assert len({claim["name"] for claim in created_claims(cluster, where)}) == runs


@pytest.fixture(params=["local", pytest.param("kubernetes", marks=pytest.mark.cluster)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "local":
        yield Place()
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    namespace: str = request.getfixturevalue("namespace")
    await asyncio.to_thread(build_python_image, cluster)
    account = await asyncio.to_thread(make_account, cluster, namespace, tmp_path / "account")
    settings = {
        "engine": "kubernetes",
        "kubeconfig": account.kubeconfig,
        "in_cluster": False,
        "http_host": cluster.host_address,
        "run_token_key": KEY,
        "runtime_images": f"python={PYTHON_IMAGE}",
        "image_pull_policy": "Never",
    }
    yield KubernetesPlace("kubernetes", settings, True, cluster, namespace)
