"""From a function and a request to the plan of one run: everything an engine needs, rendered, nothing it must ask for.

Pure: the clock, the tokens and the addresses come in. A request's values reach the plan through declared parameters
only, and only inside string values that the function's owner wrote.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from invoker import wire
from invoker.errors import SchemaViolationError
from invoker.gateway.run_address import function_uid
from invoker.request import RequestRecord
from trigger.function import Function, parameter_text
from trigger.placeholder import fill
from trigger.plan import Code, InputMode, Limits, RunPlan
from trigger.pod_placeholder import filled


def plan_run(
    function: Function,
    record: RequestRecord,
    *,
    run_id: str,
    body: bytes | None,
    run_url: str,
    run_token: str,
    catalog: str,
    deadline_at: datetime | None,
    output_limit_bytes: int,
    trace: Mapping[str, str] | None = None,
) -> RunPlan:
    """The plan of one run; equal arguments give an equal plan.

    `body` is needed for `input.as: env` only, `trace` holds `traceparent` and `tracestate` of the run's span. Raises
    `SchemaViolationError` (the run ends as `invalid-input`) for parameters that are not declared or do not fit, and for
    an input that is too large for the environment.
    """
    parameters = function.resolve_parameters(record.params)
    values = _placeholder_values(function, record, run_id, parameters)
    own = {
        variable.name: fill(variable.value or "", values) for variable in function.env if variable.value_from is None
    }
    given = {"TOPIC": record.topic} | {name.upper(): value for name, value in (trace or {}).items()}
    env = given | own | _invoker_env(function, record, run_id, run_url, run_token, parameters)
    if deadline_at is not None:
        env["INVOKER_DEADLINE"] = deadline_at.astimezone(UTC).isoformat()
    if function.input.mode is InputMode.ENV:
        env |= _input_env(function, record, body, function_uid(run_url, run_token))
    return RunPlan(
        run_id=run_id,
        request_id=record.request_id,
        function=function.name,
        topic=record.topic,
        spec_hash=function.spec_hash,
        catalog=catalog,
        code=_filled_code(function.code, values),
        env=env,
        input=function.input.mode,
        output=function.output.mode,
        limits=_limits(function, output_limit_bytes),
        deadline_at=deadline_at,
        no_retry_exit_codes=function.no_retry_exit_codes,
        labels=function.labels,
        pod=_pod(function, values),
        keep_log=function.keep_log,
        traceparent=(trace or {}).get(wire.H_TRACEPARENT),
    )


def _placeholder_values(
    function: Function, record: RequestRecord, run_id: str, parameters: Mapping[str, object]
) -> dict[str, str]:
    values = {f"params.{name}": parameter_text(value) for name, value in parameters.items()}
    return values | {
        "request.id": record.request_id,
        "root.id": record.root_request_id,
        "run.id": run_id,
        "function": function.name,
        "topic": record.topic,
    }


def _invoker_env(
    function: Function,
    record: RequestRecord,
    run_id: str,
    run_url: str,
    run_token: str,
    parameters: Mapping[str, object],
) -> dict[str, str]:
    env = {
        "INVOKER_RUN_ID": run_id,
        "INVOKER_REQUEST_ID": record.request_id,
        "INVOKER_FUNCTION": function.name,
        "INVOKER_TOPIC": record.topic,
        "INVOKER_RUN_URL": run_url,
        "INVOKER_RUN_TOKEN": run_token,
        "INVOKER_PARAMS": json.dumps(parameters, ensure_ascii=False, separators=(",", ":")),
    }
    if function.code.handler is not None:
        env["INVOKER_HANDLER"] = function.code.handler
    if function.timeout_seconds is not None:
        env["INVOKER_TIMEOUT_SECONDS"] = _seconds(function.timeout_seconds)
    if function.resources.memory_bytes is not None:
        env["INVOKER_MEMORY_LIMIT"] = str(function.resources.memory_bytes)
    return env


def _seconds(seconds: float) -> str:
    return str(int(seconds)) if seconds == int(seconds) else str(seconds)


def _input_env(function: Function, record: RequestRecord, body: bytes | None, uid: str) -> dict[str, str]:
    size = record.body.size_bytes if body is None else len(body)
    if size > wire.MAX_ENV_INPUT_BYTES:
        detail = f"has {size} bytes; 'input.as: env' takes at most {wire.MAX_ENV_INPUT_BYTES}"
        raise SchemaViolationError(
            f"the input {detail}",
            hint=f"let {function.name} read its input with 'as: api' or 'as: file'",
            function=function.name,
            errors=[{"pointer": "", "detail": detail}],
        )
    if body is None:
        raise ValueError(f"{function.name} takes its input from the environment, so its plan needs the body")
    text = base64.b64encode(body).decode()
    return {"INVOKER_INPUT_BASE64": text, "PAYLOAD": text, "FUNCTION_UID": uid}


def _filled_code(code: Code, values: Mapping[str, str]) -> Code:
    if code.command is None and not code.args:
        return code
    return Code(
        runtime=code.runtime,
        handler=code.handler,
        folder=code.folder,
        inline=code.inline,
        requirements=code.requirements,
        image=code.image,
        command=None if code.command is None else tuple(fill(word, values) for word in code.command),
        args=tuple(fill(word, values) for word in code.args),
    )


def _limits(function: Function, output_limit_bytes: int) -> Limits:
    return Limits(
        backoff_limit=function.backoff_limit,
        timeout_seconds=function.timeout_seconds,
        pending_timeout_seconds=function.pending_timeout_seconds,
        ttl_seconds_after_finished=function.ttl_seconds_after_finished,
        memory_bytes=function.resources.memory_bytes,
        output_bytes=output_limit_bytes,
    )


def _pod(function: Function, values: Mapping[str, str]) -> dict[str, Any]:
    """What only an engine with pods can honour, in Kubernetes' own spelling; empty for most functions.

    `env` holds the variables that refer to secrets and configuration: an engine that cannot read those must refuse.
    """
    references = [{"name": one.name, "valueFrom": one.value_from} for one in function.env if one.value_from is not None]
    pod: dict[str, Any] = {}
    if references:
        pod["env"] = references
    if function.resources.requests or function.resources.limits:
        pod["resources"] = {"requests": dict(function.resources.requests), "limits": dict(function.resources.limits)}
    if function.volume is not None:
        pod["volume"] = {
            "size": function.volume.size,
            "mountPath": function.volume.mount_path,
            "storageClass": function.volume.storage_class,
            "accessMode": function.volume.access_mode,
        }
    if function.pod:
        pod["settings"] = filled(function.pod, values)
    if function.keep_pod:
        pod["keepPod"] = True
    if function.job is not None:
        pod["job"] = filled(function.job, values)
    return pod
