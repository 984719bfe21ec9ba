"""The metrics as they are defined: names, labels, everything from the start at zero, nothing of what has gone."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from invoker import errors
from invoker.errors import InvokerError
from invoker.gateway.metrics import EXPECTED_CODES, GatewayMetrics
from invoker.publish import PUBLISH_OUTCOMES
from invoker.result import Reason, State
from invoker.version import __version__
from trigger.engine import START_ANSWERS
from trigger.engines import request_reasons
from trigger.metrics import DEAD_REASONS, KEPT_SECONDS, Metrics

ROOT = Path(__file__).parents[2]
DESIGNED = re.findall(
    r"\w+",
    """events_received_total events_unmatched_total events_dead_total runs_accepted_total runs_started_total
runs_finished_total runs_active run_queue_seconds run_start_seconds run_duration_seconds reply_delay_seconds
attempts_total engine_requests_total stream_pending nats_connected catalog_loads_total catalog_functions
catalog_broken_functions heartbeats_late_total""",
)
CONTROLLER_LABELS = {"function", "state", "reason", "engine", "stream", "component", "version", "le"}
GATEWAY_LABELS = {"route", "method", "code", "reason", "source", "component", "version", "le"}


def begun(engine: str = "local") -> Metrics:
    """A controller's metrics, right after the start, with one function."""
    metrics = Metrics(engine)
    metrics.expect_requests(request_reasons(engine))
    metrics.follow_functions({"resize": 3}, {}, 0.0)
    return metrics


def families(metrics: Metrics | GatewayMetrics) -> dict[str, Metric]:
    """By the name that a query uses."""
    return {
        f"{family.name}{'_total' if family.type == 'counter' else ''}": family for family in metrics.registry.collect()
    }


def value(metrics: Metrics | GatewayMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize("engine", ["local", "kubernetes"])
def test_every_metric_of_the_design_has_series_from_the_start_and_all_are_zero(engine: str) -> None:
    found = families(begun(engine))
    assert {f"invoker_{name}" for name in DESIGNED} <= set(found)
    assert [name for name, family in found.items() if not family.samples] == []
    moving = {"invoker_build_info", "invoker_stream_limit_bytes", "invoker_function_concurrency"}
    for name, family in found.items():
        if not name.startswith("process_") and name not in moving:
            assert {sample.value for sample in family.samples} == {0.0}, name


def test_a_gateways_metrics_have_series_from_the_start() -> None:
    metrics = GatewayMetrics()
    metrics.expect_calls([("/v1/topics/{topic}", {"POST"})])
    empty = {name for name, family in families(metrics).items() if not family.samples}
    assert empty == {"invoker_results_behind"}, "that one is there where there is a copy"
    assert value(metrics, "invoker_http_requests_total", route="/v1/topics/{topic}", method="POST", code="503") == 0.0
    assert {
        sample.labels["reason"] for sample in families(metrics)["invoker_http_logins_refused_total"].samples
    } == set(errors.LOGIN_FAULTS)


@pytest.mark.parametrize(("metrics", "allowed"), [(begun(), CONTROLLER_LABELS), (GatewayMetrics(), GATEWAY_LABELS)])
def test_labels_come_from_bounded_sets(metrics: Metrics | GatewayMetrics, allowed: set[str]) -> None:
    for family in metrics.registry.collect():
        assert {label for sample in family.samples for label in sample.labels} <= allowed, family.name


@pytest.mark.parametrize("metrics", [begun(), GatewayMetrics()])
def test_names_and_units_are_prometheus(metrics: Metrics | GatewayMetrics) -> None:
    for name, family in families(metrics).items():
        assert re.fullmatch(r"(invoker|process)_[a-z_]+", name)
        assert family.documentation
        assert name.endswith("_total") is (family.type == "counter"), name
        assert not re.search(r"_(ms|milliseconds|kb|mb|minutes|percent|created)\b", name)
        assert family.type != "histogram" or name.endswith("_seconds")


def test_the_version_is_told() -> None:
    assert value(begun(), "invoker_build_info", component="controller", version=__version__) == 1.0
    assert value(GatewayMetrics(), "invoker_build_info", component="gateway", version=__version__) == 1.0


def test_a_function_is_there_with_every_reason_once_it_is_known() -> None:
    metrics = begun()
    assert value(metrics, "invoker_runs_finished_total", function="late", state="lost", reason="node-lost") is None
    metrics.follow_functions({"resize": 3, "late": None}, {"resize": 2}, 1.0)
    finished = [
        one for one in families(metrics)["invoker_runs_finished_total"].samples if one.labels["function"] == "late"
    ]
    assert {one.labels["reason"] for one in finished} == {str(reason) for reason in Reason}
    assert {one.labels["state"] for one in finished} == {str(state) for state in State if state.finished}
    assert value(metrics, "invoker_function_concurrency", function="late") == math.inf
    assert value(metrics, "invoker_function_concurrency", function="resize") == 3.0
    assert value(metrics, "invoker_runs_active", function="resize") == 2.0


def test_the_series_of_a_function_that_has_gone_go_away_once_its_last_runs_were_seen() -> None:
    metrics = begun()
    metrics.of("resize").finished(State.FAILED, Reason.EXPIRED_IN_QUEUE)
    metrics.of("resize").finished(State.LOST, Reason.EXPIRED_IN_QUEUE)  # not the state this reason usually has
    metrics.of("resize").attempt_ended(None)
    metrics.follow_functions({}, {"resize": 1}, 100.0)  # out of the catalog, a run is held
    metrics.follow_functions({}, {}, 100.0 + KEPT_SECONDS)
    assert (
        value(metrics, "invoker_runs_finished_total", function="resize", state="lost", reason="expired-in-queue") == 1.0
    )
    metrics.follow_functions({}, {}, 101.0 + KEPT_SECONDS)
    assert b"resize" not in metrics.exposition()
    metrics.of("resize").accepted.inc()  # it is back, and begins at zero
    assert value(metrics, "invoker_runs_accepted_total", function="resize") == 1.0
    assert value(metrics, "invoker_runs_finished_total", function="resize", state="failed", reason="error") == 0.0


def test_a_function_that_was_only_heard_of_between_two_scrapes_goes_away_as_well() -> None:
    metrics = begun()
    metrics.of("gone").finished(State.FAILED, Reason.FUNCTION_REMOVED)
    metrics.follow_functions({"resize": 3}, {}, 10.0)
    assert b'function="gone"' in metrics.exposition()
    metrics.follow_functions({"resize": 3}, {}, 11.0 + KEPT_SECONDS)
    assert b'function="gone"' not in metrics.exposition()
    assert b'function="resize"' in metrics.exposition()


def test_a_next_event_that_is_refused_for_good_is_counted_from_zero() -> None:
    """Finish makes a dead letter of whatever a publish raises and time does not mend."""
    outcomes = {"stored", "duplicate"}
    waited_out = {errors.BackPressureError.code, errors.ServerUnreachableError.code}
    assert set(PUBLISH_OUTCOMES) - outcomes - waited_out <= set(DEAD_REASONS)


def test_the_page_says_which_answers_are_counted_from_zero() -> None:
    told = re.search(r"only ([0-9, and]+) are there beforehand", (ROOT / "docs" / "metrics.md").read_text())
    assert told is not None
    assert tuple(re.findall(r"\d+", told[1])) == EXPECTED_CODES
    advised = re.findall(r'`code="(\d+)"`', (ROOT / "docs" / "metrics.md").read_text())
    assert advised
    assert set(advised) <= set(EXPECTED_CODES)


@pytest.mark.parametrize("file", ["trigger/decode.py", "trigger/accept.py", "trigger/intake.py", "invoker/publish.py"])
def test_whatever_makes_a_dead_letter_is_counted_from_zero(file: str) -> None:
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, InvokerError)}
    assert set(DEAD_REASONS) | set(PUBLISH_OUTCOMES) - {"stored", "duplicate"} <= codes
    source = (ROOT / file).read_text()
    # Given back and tried again, or raised to whoever publishes: these never make a dead letter.
    waited_out = {"BackPressureError", "ServerUnreachableError"}
    raised = set(re.findall(r"\b(?:raise|error =|Undecodable\() ?(\w+Error)\(", source)) - waited_out
    assert raised
    assert {vars(errors)[name].code for name in raised} <= set(DEAD_REASONS)


def test_what_the_engines_are_asked_is_counted_from_zero() -> None:
    assert request_reasons("local") == START_ANSWERS
    sources = (ROOT / "trigger" / "kubernetes_engine").glob("*.py")
    verbs = {verb for path in sources for verb in re.findall(r'Call\(\s*"([a-z]+)"', path.read_text())}
    assert len(verbs) > 5
    assert {reason.split()[0] for reason in request_reasons("kubernetes")} == verbs
