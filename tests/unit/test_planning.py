"""Plans: the complete environment, placeholders filled in string values only, and what is refused."""

from __future__ import annotations

import base64
import json
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker import wire
from invoker.errors import SchemaViolationError
from invoker.request import ClaimCheck, Content, RequestRecord
from invoker.schema import Schema
from trigger.function import EnvVar, Function, InputSpec, OutputSpec, Parameter, Resources, Volume
from trigger.placeholder import fill, placeholders, problem_of, problem_of_command
from trigger.plan import Code, InputMode, OutputMode, RunPlan
from trigger.planning import plan_run

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
DEADLINE = datetime(2026, 11, 23, 4, 12, tzinfo=timezone(timedelta(hours=1)))


def record(data: bytes = b"hi", **more: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "request_id": "req1",
        "topic": "collected.zip",
        "received_at": NOW,
        "accepted_at": NOW,
        "sha256": wire.sha256_hex(data),
        "catalog": "c1",
        "root_request_id": "root1",
        "body": Content.inline(data),
    }
    return RequestRecord(**(values | more))


def function(**more: Any) -> Function:
    values: dict[str, Any] = {
        "name": "f",
        "file": "f/function.yaml",
        "spec_hash": "a" * 16,
        "code": Code(runtime="python", handler="main.handle", folder=Path("/catalog/f")),
    }
    return Function(**(values | more))


def plan(of: Function, request: RequestRecord | None = None, **more: Any) -> RunPlan:
    values: dict[str, Any] = {
        "run_id": "run1",
        "body": b"hi",
        "run_url": "http://127.0.0.1:7222/run/run1/",
        "run_token": "secret",
        "catalog": "c2",
        "deadline_at": DEADLINE,
        "output_limit_bytes": 1000,
    }
    return plan_run(of, request or record(), **(values | more))


def parameter(name: str, schema: dict[str, Any], **more: Any) -> Parameter:
    return Parameter(name, Schema(schema), **more)


def test_the_span_of_a_run_is_in_its_environment_unless_the_function_says_otherwise() -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    trace = {"traceparent": traceparent, "tracestate": "a=1"}
    made = plan(function(), trace=trace)
    assert (made.env["TRACEPARENT"], made.env["TRACESTATE"], made.traceparent) == (traceparent, "a=1", traceparent)
    assert made.ids()["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    own = function(env=(EnvVar("TRACEPARENT", "mine"),))
    assert plan(own, trace=trace).env["TRACEPARENT"] == "mine"


def test_the_whole_environment_of_a_plain_run() -> None:
    limited = function(timeout_seconds=90.0, resources=Resources(memory_bytes=2**28))
    assert plan(limited).env == {
        "TOPIC": "collected.zip",
        "INVOKER_RUN_ID": "run1",
        "INVOKER_REQUEST_ID": "req1",
        "INVOKER_FUNCTION": "f",
        "INVOKER_TOPIC": "collected.zip",
        "INVOKER_RUN_URL": "http://127.0.0.1:7222/run/run1/",
        "INVOKER_RUN_TOKEN": "secret",
        "INVOKER_PARAMS": "{}",
        "INVOKER_HANDLER": "main.handle",
        "INVOKER_TIMEOUT_SECONDS": "90",
        "INVOKER_MEMORY_LIMIT": "268435456",
        "INVOKER_DEADLINE": "2026-11-23T03:12:00+00:00",
    }


def test_what_has_no_bound_has_no_variable() -> None:
    env = plan(function(code=Code(command=("cat",))), deadline_at=None).env
    assert not {"INVOKER_TIMEOUT_SECONDS", "INVOKER_MEMORY_LIMIT", "INVOKER_DEADLINE", "INVOKER_HANDLER"} & env.keys()


def test_the_functions_fields_reach_the_plan() -> None:
    planned = plan(
        function(
            input=InputSpec(InputMode.FILE),
            output=OutputSpec(OutputMode.STDOUT),
            backoff_limit=2,
            timeout_seconds=1.5,
            pending_timeout_seconds=7.0,
            ttl_seconds_after_finished=0.0,
            no_retry_exit_codes=frozenset({64}),
            labels={"team": "etl"},
        )
    )
    assert (planned.input, planned.output) == (InputMode.FILE, OutputMode.STDOUT)
    limits = planned.limits
    assert (limits.backoff_limit, limits.timeout_seconds, limits.pending_timeout_seconds) == (2, 1.5, 7.0)
    assert (limits.ttl_seconds_after_finished, limits.output_bytes, limits.memory_bytes) == (0.0, 1000, None)
    assert (planned.run_id, planned.request_id, planned.function, planned.topic) == (
        "run1",
        "req1",
        "f",
        "collected.zip",
    )
    assert (planned.spec_hash, planned.catalog, planned.deadline_at) == ("a" * 16, "c2", DEADLINE)
    assert (planned.no_retry_exit_codes, planned.labels, planned.pod) == (frozenset({64}), {"team": "etl"}, {})
    assert planned.env["INVOKER_TIMEOUT_SECONDS"] == "1.5"


def test_what_only_pods_can_honour_is_kept_in_kubernetes_spelling() -> None:
    reference = {"secretKeyRef": {"name": "s", "key": "k"}}
    planned = plan(
        function(
            env=(EnvVar("KEY", value_from=reference), EnvVar("A", "1")),
            resources=Resources({"cpu": "100m"}, {"memory": "1Gi"}, 2**30),
            volume=Volume("1Gi", "/scratch", "fast"),
            job={"spec": {}},
        )
    )
    assert planned.pod == {
        "env": [{"name": "KEY", "valueFrom": reference}],
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}},
        "volume": {"size": "1Gi", "mountPath": "/scratch", "storageClass": "fast", "accessMode": "ReadWriteOnce"},
        "job": {"spec": {}},
    }
    assert "KEY" not in planned.env
    assert planned.env["A"] == "1"


def test_pod_settings_and_a_job_reach_the_plan_with_their_placeholders_filled() -> None:
    container = {"name": "f", "image": "i", "args": ["{{params.x}}"]}
    job = {"template": {"spec": {"containers": [container]}}}
    parameters = (parameter("x", {"type": "string"}),)
    request = record(params={"x": "$(A)"})
    planned = plan(function(job=job, parameters=parameters, keep_pod=True, keep_log=True), request)
    filled = {"template": {"spec": {"containers": [container | {"args": ["$$(A)"]}]}}}
    assert (planned.pod, planned.keep_log) == ({"job": filled, "keepPod": True}, True)
    settings = {"queue": "q", "annotations": {"a": "{{params.x}}"}}
    planned = plan(function(pod=settings, parameters=parameters), request)
    assert (planned.pod, planned.keep_log) == ({"settings": {"queue": "q", "annotations": {"a": "$(A)"}}}, False)


def test_an_input_in_the_environment() -> None:
    body = bytes(range(256))
    env = plan(function(input=InputSpec(InputMode.ENV)), record(body), body=body).env
    assert env["INVOKER_INPUT_BASE64"] == env["PAYLOAD"] == base64.b64encode(body).decode()
    assert env["FUNCTION_UID"] == "run1.secret"
    assert env["TOPIC"] == "collected.zip"


def test_an_empty_input_in_the_environment_is_there_and_empty() -> None:
    env = plan(function(input=InputSpec(InputMode.ENV)), record(b""), body=b"").env
    assert (env["INVOKER_INPUT_BASE64"], env["PAYLOAD"]) == ("", "")


def test_the_largest_input_in_the_environment_and_one_byte_more() -> None:
    of = function(input=InputSpec(InputMode.ENV))
    largest = b"x" * wire.MAX_ENV_INPUT_BYTES
    env = plan(of, record(largest), body=largest).env
    assert subprocess.run(["/usr/bin/env"], env=env, stdout=subprocess.DEVNULL, check=True).returncode == 0
    with pytest.raises(SchemaViolationError) as refused:
        plan(of, record(largest + b"x"), body=largest + b"x")
    assert refused.value.code == "invalid-input"
    assert f"has {wire.MAX_ENV_INPUT_BYTES + 1} bytes; 'input.as: env' takes at most" in refused.value.message


def test_an_input_behind_a_claim_check_is_refused_by_its_size_before_it_is_read() -> None:
    claim = ClaimCheck(object="o", size_bytes=10**9, sha256="0" * 64)
    with pytest.raises(SchemaViolationError, match="1000000000 bytes"):
        plan(function(input=InputSpec(InputMode.ENV)), record(body=Content.claimed(claim)), body=None)


def test_a_plan_without_the_body_it_needs_is_a_bug() -> None:
    with pytest.raises(ValueError, match="needs the body"):
        plan(function(input=InputSpec(InputMode.ENV)), body=None)


def test_parameters_fill_environment_and_arguments() -> None:
    of = function(
        code=Code(command=("tool", "--level", "{{params.level}}"), args=("{{ topic }}", "{{run.id}}/{{request.id}}")),
        parameters=(
            parameter("level", {"type": "integer"}, default=6),
            parameter("tags", {"type": "array"}),
            parameter("note", {"type": "string"}),
        ),
        env=(
            EnvVar("LEVEL", "l={{params.level}}"),
            EnvVar("TAGS", "{{params.tags}}"),
            EnvVar("NOTE", "<{{params.note}}>"),
            EnvVar("WHO", "{{function}} {{root.id}}"),
            EnvVar("EMPTY"),
        ),
    )
    planned = plan(of, record(params={"Level": "9", "tags": '["a"]'}))
    assert planned.code.command == ("tool", "--level", "9")
    assert planned.code.args == ("collected.zip", "run1/req1")
    own = {name: planned.env[name] for name in ("LEVEL", "TAGS", "NOTE", "WHO", "EMPTY")}
    assert own == {"LEVEL": "l=9", "TAGS": '["a"]', "NOTE": "<>", "WHO": "f root1", "EMPTY": ""}
    assert json.loads(planned.env["INVOKER_PARAMS"]) == {"level": 9, "tags": ["a"]}


def test_parameters_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SchemaViolationError, match="declares no parameter 'x'"):
        plan(function(), record(params={"x": "1"}))


def test_a_function_cannot_overwrite_invokers_variables_but_may_its_own_topic() -> None:
    """The loader refuses the names already; the plan does not rely on it."""
    env = plan(function(env=(EnvVar("INVOKER_RUN_TOKEN", "mine"), EnvVar("TOPIC", "mine")))).env
    assert (env["INVOKER_RUN_TOKEN"], env["TOPIC"]) == ("secret", "mine")


def test_code_without_a_command_is_handed_on_untouched() -> None:
    code = Code(runtime="python", handler="main.handle", inline="x = '{{topic}}'")
    assert plan(function(code=code)).code is code


def test_equal_arguments_give_an_equal_plan() -> None:
    assert plan(function()) == plan(function())


@given(st.text(max_size=60))
def test_a_value_never_becomes_a_placeholder_a_word_or_a_variable(text: str) -> None:
    """Whatever a request says, it stays inside the one string that its parameter stands in."""
    safe = text.replace("\0", "")
    of = function(
        code=Code(command=("tool", "a {{params.x}} b")),
        parameters=(parameter("x", {"type": "string"}),),
        env=(EnvVar("X", "[{{params.x}}]"), EnvVar("Y", "fixed")),
    )
    planned = plan(of, record(params={"x": safe}))
    assert planned.code.command == ("tool", f"a {safe} b")
    assert planned.env["X"] == f"[{safe}]"
    assert planned.env.keys() - plan(function()).env.keys() == {"X", "Y"}


def test_placeholders_are_filled_once() -> None:
    values = {"params.a": "{{topic}}", "topic": "t"}
    assert fill("{{params.a}} {{topic}} {{ params.a }}", values) == "{{topic}} t {{topic}}"
    assert fill("no braces", values) == "no braces"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", None),
        ("plain { braces }", None),
        ("{{params.level}} {{topic}} {{ request.id }} {{run.id}} {{root.id}} {{function}}", None),
        ("{{params.levle}}", "unknown placeholder 'params.levle'; did you mean 'params.level'?"),
        ("{{}}", "unknown placeholder ''"),
        ("{{level}}", "unknown placeholder 'level'"),
        ("{{params.level | upper}}", "unknown placeholder"),
        ("{{__import__('os')}}", "unknown placeholder"),
        ("{{topic", "'{{' without its '}}'"),
        ("{{topic}} {{", "'{{' without its '}}'"),
        ("{{ {{topic}} }}", "'{{' without its '}}'"),
        ("{{" + "a" * 300 + "}}", "'{{' without its '}}'"),
    ],
)
def test_unknown_placeholders_are_named(text: str, problem: str | None) -> None:
    found = problem_of(text, ["level"])
    if problem is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(problem)


@pytest.mark.parametrize(
    ("command", "index"),
    [
        (["tool", "{{topic}}"], None),
        (["sh", "script.sh"], None),
        ([], None),
        (["{{topic}}"], 0),
        (["sh", "-c", "echo {{topic}}"], 2),
        (["/usr/bin/bash", "-ec", "x", "{{topic}}"], 3),
        (["env", "{{topic}}"], None),
    ],
)
def test_a_request_never_chooses_what_is_executed(command: list[str], index: int | None) -> None:
    found = problem_of_command(command)
    assert (None if found is None else found[0]) == index


def test_placeholders_in_order() -> None:
    assert placeholders("{{a}} {{ b }}{{c.d}}") == ["a", "b", "c.d"]
