"""Names, labels and annotations of what Invoker makes in a cluster, and the selectors that find it again. Pure.

A Job's name derives from instance and run id, so a second start meets the first one's Job. Labels are what is selected
by; annotations carry the rest, in full.
"""

from __future__ import annotations

import re

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "invoker"
INSTANCE = "invoker.dev/instance"
FUNCTION = "invoker.dev/function"
RUN = "invoker.dev/run"
REQUEST = "invoker.dev/request"
TOPIC = "invoker.dev/topic"
SPEC = "invoker.dev/spec"
CATALOG = "invoker.dev/catalog"
TERMS = "invoker.dev/terms"
TRACEPARENT = "invoker.dev/traceparent"
DEADLINE = "invoker.dev/deadline"
STOP = "invoker.dev/stop"
PRINTED = "invoker.dev/printed"
"""On a Job: how its pod's large output begins, for a controller that did not see it."""
CODE = "invoker.dev/code"
JOB = "batch.kubernetes.io/job-name"
"""Kubernetes' own label on the pods of a Job."""

RESULT_FINALIZER = "invoker.dev/result"
"""On a Job: it stays until its run's result is sealed and its reply sent."""

FUNCTION_CONTAINER = "function"
INPUT_CONTAINER = "input"

MAX_NAME = 63
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def job_name(instance: str, run_id: str) -> str:
    """The name of a run's Job."""
    return f"{instance}-{run_id}"


def code_name(instance: str, content_hash: str) -> str:
    """The name of the ConfigMap that holds code of this content."""
    return f"{instance}-code-{content_hash}"


def labels(instance: str, function: str, run_id: str, request_id: str) -> dict[str, str]:
    """The labels of a run's Job and pods. A request id that is no legal label value is left to the annotation."""
    found = {MANAGED_BY: MANAGER, INSTANCE: instance, FUNCTION: function, RUN: run_id}
    if is_label_value(request_id):
        found[REQUEST] = request_id
    return found


def selector(instance: str, run_id: str | None = None) -> str:
    """Selects everything of an instance, or of one of its runs."""
    chosen = {MANAGED_BY: MANAGER, INSTANCE: instance}
    if run_id is not None:
        chosen[RUN] = run_id
    return ",".join(f"{key}={value}" for key, value in chosen.items())


def is_label_value(text: str) -> bool:
    return _LABEL_VALUE.fullmatch(text) is not None
