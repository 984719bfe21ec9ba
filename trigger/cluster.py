"""A cluster seen from a desk: is there what runs need, what would the API server say of a Job, and the removal of all
that one installation has made.

Controllers do without: they start while the API server is away, and `/readyz` says so. Whoever sits at a desk wants to
hear at once, and in words, what is missing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from invoker.errors import CatalogError, EngineUnavailableError, SettingsError
from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.failures import (
    NOT_TRUSTED,
    ApiFailure,
    is_namespace_terminating,
    is_transient,
    sentence,
)
from trigger.kubernetes_engine.installed import require_installed
from trigger.kubernetes_settings import KubernetesSettings

if TYPE_CHECKING:
    from trigger.kubernetes_engine.api import Api

NOBODY = "_"
"""A name that no object can have: what is asked of it is refused for want of the right, or finds nothing."""
ROLE_HINT = "give it the Role of docs/kubernetes.md#rights (deploy/rbac.yaml)"
DESK_SECONDS = 4.0
"""Whoever waits at a desk hears soon that nobody answers; controllers have more patience."""
GONE_SECONDS = 90.0
LOOK_SECONDS = 0.3
REMOVAL_SECONDS = 8.0
TRY_LATER = "the same command may succeed later"


@dataclass(frozen=True, slots=True)
class Place:
    """Where Jobs are made: the namespace, and the API server's address."""

    namespace: str
    server: str

    def __str__(self) -> str:
        return f"Jobs in namespace {self.namespace} of {self.server}"


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed of an installation; `left` Jobs and pods had not ended when the time was over."""

    namespace: str
    jobs: int
    config_maps: int
    left: int = 0


@asynccontextmanager
async def opened(settings: KubernetesSettings, patience_seconds: float = DESK_SECONDS) -> AsyncIterator[Api]:
    """The API server that the settings name. Raises `SettingsError` for a missing library, kubeconfig or context."""
    require_installed()
    from trigger.kubernetes_engine.api import Api, CallLimits
    from trigger.kubernetes_engine.options import access_of
    from trigger.kubernetes_engine.retries import Patience

    async with Api(access_of(settings), limits=CallLimits(Patience(patience_seconds))) as api:
        yield api


async def look_at(settings: KubernetesSettings) -> Place:
    """Where Jobs will be made, once it is sure that they can be: the namespace is there, and no right is missing.

    Changes nothing. Raises `SettingsError` saying what is missing, `EngineUnavailableError` when nobody answers.
    """
    async with opened(settings) as api:
        place = Place(api.namespace, api.server)
        answers = await asyncio.gather(*(_answer(probe(api)) for _, probe in _PROBES))
        failures = {right: answer for (right, _), answer in zip(_PROBES, answers, strict=True) if answer is not None}
        problem = problem_of(failures, place)
        if problem is not None:
            raise problem
        return place


def problem_of(failures: Mapping[str, ApiFailure], place: Place) -> SettingsError | EngineUnavailableError | None:
    """What the refusals of the probes, by right, say about the cluster; None when runs can be started. Pure.

    A Job that was refused for what it is (a quota, a policy about images) says nothing about those of functions.
    """
    for failure in failures.values():
        if failure.status == 401:
            return SettingsError(
                f"INVOKER_KUBECONFIG: the API server at {place.server} does not accept the credentials in it",
                hint="renew them, or name another kubeconfig or context (--kubeconfig, --kube-context)",
            )
    for failure in failures.values():
        if failure.status == 0:
            return _unanswered(failure, place)
        if is_transient(failure):
            return EngineUnavailableError(sentence(failure, f"the cluster at {place.server}"), hint=TRY_LATER)
    if any(_is_namespace_missing(failure, place.namespace) for failure in failures.values()):
        return SettingsError(
            f"INVOKER_KUBE_NAMESPACE: there is no namespace {place.namespace} at {place.server}",
            hint="make it, or name another one with --namespace",
            try_command=f"kubectl create namespace {place.namespace}",
        )
    if any(is_namespace_terminating(failure) for failure in failures.values()):
        return SettingsError(f"INVOKER_KUBE_NAMESPACE: the namespace {place.namespace} is being deleted")
    missing = [right for right, failure in failures.items() if _is_forbidden(failure)]
    if missing:
        words = f"{', '.join(missing)} in namespace {place.namespace} of {place.server}"
        return SettingsError(f"INVOKER_KUBECONFIG: Invoker's account may not: {words}", hint=ROLE_HINT)
    return None


def _unanswered(failure: ApiFailure, place: Place) -> SettingsError | EngineUnavailableError:
    if NOT_TRUSTED in failure.message:
        return SettingsError(
            f"INVOKER_KUBECONFIG: {place.server} is not who the kubeconfig expects: {failure.message}",
            hint="its certificate-authority-data is another cluster's, or missing",
        )
    return EngineUnavailableError(
        f"the API server at {place.server} does not answer: {failure.message or 'no connection'}",
        hint="is the cluster running, and is this its address? Another one: --kubeconfig, --kube-context",
    )


async def dry_run(settings: KubernetesSettings, job: Mapping[str, Any]) -> dict[str, Any]:
    """A function's Job as the API server would store it, after its defaults and policies; nothing is kept.

    Raises `CatalogError` with the refusal in words, or as `look_at` does when it cannot be asked.
    """
    function = job["metadata"]["labels"][names.FUNCTION]
    async with opened(settings) as api:
        try:
            return await api.dry_run_job(to_json(job))
        except ApiFailure as failure:
            problem = problem_of({"create jobs": failure}, Place(api.namespace, api.server))
            raise (problem or CatalogError(sentence(failure, f"the Job of {function}"))) from failure


async def remove_all(settings: KubernetesSettings, instance: str) -> Removed:
    """Remove every Job, pod and ConfigMap of an installation, whatever state its runs are in, and wait until the pods
    have ended. Safe to repeat. Raises `EngineUnavailableError` when the API server does not let us.
    """
    from trigger.kubernetes_engine.api import Kind

    async with opened(settings, patience_seconds=REMOVAL_SECONDS) as api:
        try:
            selector = names.selector(instance)
            jobs = [item["metadata"] async for item in api.list(Kind.JOB, selector)]
            for one in jobs:
                await _remove_job(api, one)
            maps = [item["metadata"]["name"] async for item in api.list(Kind.CONFIG_MAP, selector)]
            for name in maps:
                await api.delete_config_map(name)
            return Removed(api.namespace, len(jobs), len(maps), await _until_gone(api, selector))
        except ApiFailure as failure:
            raise EngineUnavailableError(sentence(failure, f"remove what {instance} has made")) from failure


async def _remove_job(api: Api, metadata: Mapping[str, Any]) -> None:
    """Its end is asked for first: without its finalizer a controller that still lives would not look after it."""
    await api.delete_job(metadata["name"], uid=metadata["uid"])
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": [names.RESULT_FINALIZER]}}
    if names.RESULT_FINALIZER in (metadata.get("finalizers") or ()):
        await api.patch_job(metadata["name"], json.dumps(patch).encode())


async def _until_gone(api: Api, selector: str) -> int:
    """How many Jobs and pods are left when there is none, or when it has taken too long."""
    from trigger.kubernetes_engine.api import Kind

    deadline = time.monotonic() + GONE_SECONDS
    while left := len([one for kind in (Kind.JOB, Kind.POD) async for one in api.list(kind, selector)]):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(LOOK_SECONDS)
    return left


async def _answer(call: Awaitable[object]) -> ApiFailure | None:
    try:
        await call
    except ApiFailure as failure:
        return failure
    return None


async def _list(api: Api, kind: str) -> None:
    from trigger.kubernetes_engine.api import Kind

    async for _ in api.list(Kind[kind], names.selector("nobody")):
        return


async def _read_log(api: Api) -> None:
    async for _ in api.pod_log(NOBODY, names.FUNCTION_CONTAINER):
        return


_PROBES: tuple[tuple[str, Callable[[Api], Awaitable[object]]], ...] = (
    ("create jobs", lambda api: api.dry_run_job(to_json(_probe_job(api.namespace)))),
    ("get jobs", lambda api: api.get_job(NOBODY)),
    ("list jobs", lambda api: _list(api, "JOB")),
    ("patch jobs", lambda api: api.patch_job(NOBODY, b"{}")),
    ("delete jobs", lambda api: api.delete_job(NOBODY)),
    ("get pods", lambda api: api.get_pod(NOBODY)),
    ("list pods", lambda api: _list(api, "POD")),
    ("delete pods", lambda api: api.delete_pod(NOBODY)),
    ("get pods/log", _read_log),
    ("list configmaps", lambda api: _list(api, "CONFIG_MAP")),
    ("delete configmaps", lambda api: api.delete_config_map(NOBODY)),
)
"""One call for each right that can be asked for without doing anything."""


def _probe_job(namespace: str) -> dict[str, Any]:
    container = {"name": names.FUNCTION_CONTAINER, "image": "invoker.dev/probe:never-run"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "invoker-probe", "namespace": namespace},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }


def _is_forbidden(failure: ApiFailure) -> bool:
    return failure.status == 403 and " cannot " in failure.message and "User " in failure.message


def _is_namespace_missing(failure: ApiFailure, namespace: str) -> bool:
    return failure.status == 404 and f'namespaces "{namespace}" not found' in failure.message
