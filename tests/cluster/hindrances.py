"""What keeps a run from going well, made on purpose: an empty registry, a silent node, a full quota, few rights."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.cluster.engine_world import BASE_IMAGE, KubernetesWorld
from tests.cluster.serving import served


@asynccontextmanager
async def empty_registry() -> AsyncIterator[str]:
    """A registry on this machine that has no image: `host:port`. containerd speaks plain HTTP with localhost only."""

    async def unknown(request: Request) -> JSONResponse:
        problem = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}
        return JSONResponse({"errors": [problem]}, status_code=404)

    routes = [Route("/{path:path}", unknown, methods=["GET", "HEAD"])]
    async with served(Starlette(routes=routes), "127.0.0.1") as port:
        yield f"localhost:{port}"


async def evict(world: KubernetesWorld, pod: str) -> None:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": world.namespace}}
    path = f"/api/v1/namespaces/{world.namespace}/pods/{pod}/eviction"
    await world.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))


def RUNNING_STATUS() -> dict[str, Any]:  # noqa: N802 - reads as the constant that it is, but for the clock
    container = {
        "name": "function",
        "ready": True,
        "restartCount": 0,
        "image": BASE_IMAGE,
        "imageID": BASE_IMAGE,
        "state": {"running": {"startedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}},
    }
    return {"phase": "Running", "containerStatuses": [container]}


async def bound_pod(world: KubernetesWorld, run_id: str) -> str | None:
    return next((one["metadata"]["name"] for one in await world.pods(run_id) if one["spec"].get("nodeName")), None)


@asynccontextmanager
async def silent_node(world: KubernetesWorld) -> AsyncIterator[str]:
    """A node that only the scheduler believes in, and that takes only pods that ask for it."""
    name = f"silent-{world.instance}"
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"silent": name}},
        "spec": {"taints": [{"key": "silent", "effect": "NoSchedule"}]},
    }
    room = {"cpu": "4", "memory": "4Gi", "pods": "10", "ephemeral-storage": "10Gi"}
    ready = {"type": "Ready", "status": "True", "reason": "Test", "message": ""}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready |= {"lastHeartbeatTime": now, "lastTransitionTime": now}
    await world.apply(node)
    try:
        status = {"conditions": [ready], "capacity": room, "allocatable": room}
        await world.patch("node", name, {"status": status}, "--subresource=status")
        yield name
    finally:
        await world.kubectl("delete", "node", name)


async def quota(world: KubernetesWorld, hard: dict[str, str]) -> None:
    await world.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": hard}}
    )

    async def is_counted() -> bool:
        return bool((await world.get("quota"))[0].get("status", {}).get("used"))

    await world.until(is_counted)


async def only_looking(world: KubernetesWorld, folder: Path) -> Path:
    """A kubeconfig of an account that may list and watch Jobs and pods."""
    await world.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": world.instance}})
    account = f"{world.namespace}:{world.instance}"
    verbs = ("--verb=get,list,watch", "--resource=jobs,pods")
    await world.kubectl("create", "role", world.instance, *verbs)
    await world.kubectl(
        "create", "rolebinding", world.instance, f"--role={world.instance}", f"--serviceaccount={account}"
    )
    token = (await world.kubectl("create", "token", world.instance)).strip()
    config = yaml.safe_load(await world.kubectl("config", "view", "--raw", "--flatten"))
    config["users"] = [{"name": one["name"], "user": {"token": token}} for one in config["users"]]
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file
