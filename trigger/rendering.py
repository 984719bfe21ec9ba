"""What a function's run would be in a cluster: its Job, and the ConfigMap of its code. Contacts nobody.

The same plan, manifest and policy as a controller's, for an example request: its ids, its instants and its token are
fixed, so that two renderings differ only where the function or the settings do. The function's folder is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from invoker import wire
from invoker.errors import CatalogError, StartRefusedError
from invoker.gateway.run_address import RunAddress, run_url
from invoker.request import Content, RequestRecord
from trigger.decision import expiry_of
from trigger.function import Function
from trigger.kubernetes_engine.installed import require_installed
from trigger.kubernetes_engine.manifest import job_manifest
from trigger.kubernetes_engine.policy import Policy, refusals
from trigger.plan import InputMode, RunPlan
from trigger.planning import plan_run
from trigger.settings import ControllerSettings

EXAMPLE_AT = datetime(2000, 1, 1, tzinfo=UTC)
EXAMPLE_REQUEST = "example"
EXAMPLE_TOKEN = "example-token"
EXAMPLE_URL = "http://run-api.example:7222"
EXAMPLE_BODY = b"{}"


@dataclass(frozen=True, slots=True)
class Rendered:
    """The objects of one run, as they would be created, in that order. `objects` ends with the Job."""

    job: Mapping[str, Any]
    code: Mapping[str, Any] | None = None

    @property
    def objects(self) -> list[Mapping[str, Any]]:
        return [self.job] if self.code is None else [self.code, self.job]


def render(
    function: Function, settings: ControllerSettings, parameters: Mapping[str, str], namespace: str | None
) -> Rendered:
    """The objects of an example run of the function.

    Raises `CatalogError` for what a controller would refuse at a run's start, `SchemaViolationError` for parameters
    that do not fit.
    """
    plan = example_plan(function, settings, parameters)
    try:
        return _rendered(plan, settings, namespace)
    except StartRefusedError as error:
        raise CatalogError(error.message, hint=error.hint, function=function.name) from error


def example_plan(function: Function, settings: ControllerSettings, parameters: Mapping[str, str]) -> RunPlan:
    """The plan of a request that nobody has made."""
    run_id = wire.run_id_of(EXAMPLE_REQUEST, function.name)
    topic = function.subscriptions[0].topic if function.subscriptions else function.name
    record = RequestRecord(
        request_id=EXAMPLE_REQUEST,
        topic=topic.replace("*", "example").replace(">", "example"),
        received_at=EXAMPLE_AT,
        accepted_at=EXAMPLE_AT,
        sha256="0" * 64,
        catalog="example",
        functions=(function.name,),
        root_request_id=EXAMPLE_REQUEST,
        params=dict(parameters),
        body=Content.inline(EXAMPLE_BODY, "application/json"),
    )
    address = RunAddress(EXAMPLE_REQUEST, function.name, function.spec_hash, "example", "kubernetes")
    return plan_run(
        function,
        record,
        run_id=run_id,
        body=EXAMPLE_BODY if function.input.mode is InputMode.ENV else None,
        run_url=run_url(settings.run_api_url or EXAMPLE_URL, address),
        run_token=EXAMPLE_TOKEN,
        catalog=record.catalog,
        deadline_at=expiry_of(record, settings.retention_seconds),
        output_limit_bytes=settings.max_output_bytes,
    )


def _rendered(plan: RunPlan, settings: ControllerSettings, namespace: str | None) -> Rendered:
    require_installed()
    from trigger.kubernetes_engine.code_store import map_of_code
    from trigger.kubernetes_engine.options import manifest_options, policy_of

    instance = settings.cluster_instance
    code = map_of_code(instance, plan.function, plan.code)
    job = job_manifest(plan, manifest_options(instance, settings.kubernetes), code, EXAMPLE_AT)
    _check(plan, job, policy_of(namespace or "default", settings.kubernetes))
    return Rendered(_placed(job, namespace), _placed(code.manifest, namespace) if code else None)


def _check(plan: RunPlan, job: Mapping[str, Any], policy: Policy) -> None:
    found = refusals(job, policy)
    if found:
        problems = [{"pointer": one.partition(": ")[0], "detail": one.partition(": ")[2]} for one in found]
        raise CatalogError(f"the Job of {plan.function} is not allowed", function=plan.function, errors=problems)


def _placed(item: Mapping[str, Any], namespace: str | None) -> Mapping[str, Any]:
    """The object in that namespace; without one it goes wherever it is created."""
    if namespace is None:
        return item
    metadata = item["metadata"]
    return {**item, "metadata": {"name": metadata["name"], "namespace": namespace, **metadata}}
