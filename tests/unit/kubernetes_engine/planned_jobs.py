"""The plan of one run and the Job that is made of it, for the tests of what a Job holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from invoker import wire
from trigger.kubernetes_engine.code_map import CodeFile, code_map
from trigger.kubernetes_engine.manifest import ManifestOptions, job_body, job_manifest
from trigger.kubernetes_engine.policy import Policy
from trigger.plan import Code, RunPlan

NOW = datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)
OPTIONS = ManifestOptions("mine", {"python": "python-image:1"})
RUN_ID = wire.run_id_of("request-1", "convert")
CODE = code_map("mine", "convert", {"main.py": CodeFile(b"x"), "lib/run.sh": CodeFile(b"y", executable=True)})
POLICY = Policy("space", allowed_service_accounts=("*",))
HARDENED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
DISRUPTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def plan(**changes: Any) -> RunPlan:
    values: dict[str, Any] = {
        "run_id": RUN_ID,
        "request_id": "request-1",
        "function": "convert",
        "topic": "collected.gz",
        "spec_hash": "5f" * 16,
        "catalog": "ca" * 16,
        "code": Code(image="image:1"),
        "env": {"TOPIC": "collected.gz", "INVOKER_RUN_ID": RUN_ID, "INVOKER_RUN_TOKEN": "token"},
    }
    return RunPlan(**(values | changes))


def made(of: RunPlan, options: ManifestOptions = OPTIONS, code: Any = None) -> Any:
    """The Job as the API server reads it."""
    return json.loads(job_body(of, job_manifest(of, options, code, NOW)))


def pod(job: Any) -> Any:
    return job["spec"]["template"]["spec"]


def main(job: Any) -> Any:
    return next(one for one in pod(job)["containers"] if one["name"] == "function")


def env(job: Any) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in main(job)["env"]}
