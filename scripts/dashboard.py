"""Writes `charts/invoker/files/dashboard.json`, the Grafana dashboard, from the panels described here.

`python scripts/dashboard.py` writes, `--check` only tells whether the file is behind (exit code 1). Legends are left to
Grafana: a pattern in double braces would be taken for Helm's by whoever puts the file through a template.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[1] / "charts" / "invoker" / "files" / "dashboard.json"
PLACE = 'namespace=~"$namespace",invoker_dev_installation=~"$installation"'
HERE = f'{PLACE},instance=~"$instance"'
ONE = f'{HERE},function=~"$function"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
EACH = "namespace, invoker_dev_installation"
"""What tells installations apart: every controller tells an installation's levels alike, other installations others."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query; `legend` only where its series have no label that tells them apart."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: what it is called, what it asks, in which unit (Grafana's name) and how it is drawn."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    text: str = ""
    stacked: bool = False


def rate(metric: str, labels: str, *by: str) -> str:
    return f"sum by ({', '.join(by)}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, labels: str, *by: str) -> str:
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', labels, *by, 'le')})"


def quantiles(histogram: str, labels: str) -> list[Query]:
    return [Query(quantile(share, histogram, labels), f"p{round(share * 100)}") for share in (0.5, 0.95, 0.99)]


def stat(title: str, expr: str, unit: str = "short", text: str = "", legend: str = "__auto") -> Panel:
    return Panel(title, [Query(expr, legend)], unit, "stat", width=4, height=4, text=text)


def summed(metric: str, labels: str = HERE) -> str:
    """A level that every program of an installation tells alike: each installation's once, and those together."""
    return f"sum(max by ({EACH}) ({metric}{{{labels}}}))"


def total(metric: str, labels: str, name: str) -> Query:
    return Query(f"sum(rate({metric}{{{labels}}}[$__rate_interval]))", name)


OVERVIEW = [
    stat("Programs", f"count by (component) (invoker_build_info{{{HERE}}})"),
    stat("Versions", f"count by (version) (invoker_build_info{{{HERE}}})"),
    stat("NATS connected", f"min(invoker_nats_connected{{{HERE}}})", text="0 when any program is not connected"),
    stat("Functions", summed("invoker_catalog_functions")),
    stat("Functions that cannot be loaded", summed("invoker_catalog_broken_functions")),
    stat(
        "Dead letters kept", summed("invoker_stream_pending", f'{HERE},stream=~".+_DEAD"'), text="of the last 30 days"
    ),
    Panel("Events", [
        total("invoker_events_received_total", HERE, "received"),
        total("invoker_events_unmatched_total", HERE, "matched nothing"),
        total("invoker_events_dead_total", HERE, "dead letters"),
    ], "ops"),
    Panel("Runs", [
        total("invoker_runs_accepted_total", HERE, "accepted"),
        total("invoker_runs_started_total", HERE, "started"),
        total("invoker_runs_finished_total", HERE, "finished"),
    ], "ops"),
    Panel("Runs that did not succeed", [
        Query(rate("invoker_runs_finished_total", f'{HERE},state!="succeeded"', "reason")),
    ], "ops", stacked=True),
    Panel("Waiting", [
        Query(summed("invoker_stream_pending", f'{HERE},stream=~".+_EVENTS"'), "events"),
        Query(
            f"{summed('invoker_stream_pending', f'{HERE},stream=~' + chr(34) + '.+_RUNS' + chr(34))}"
            f" - sum(invoker_runs_active{{{HERE}}})",
            "runs",
        ),
    ], text="Events that are not accepted yet; runs that no controller has in hand"),
    Panel("Age of what is oldest", [
        Query(f'max by ({EACH}, stream) (invoker_stream_oldest_seconds{{{HERE},stream=~".+_(EVENTS|RUNS)"}})'),
    ], "s", text="An event waits for milliseconds; a run is in RUNS until it is finished"),
    Panel("From event to start", quantiles("invoker_run_queue_seconds", HERE), "s"),
    Panel("From the end of a run to its reply", quantiles("invoker_reply_delay_seconds", HERE), "s"),
    Panel("Calls of gateways", [Query(rate("invoker_http_requests_total", HERE, "code"))], "reqps", stacked=True),
    Panel("Duration of calls", quantiles("invoker_http_request_duration_seconds", HERE), "s"),
]  # fmt: skip

FUNCTIONS = [
    Panel("Finished", [Query(rate("invoker_runs_finished_total", ONE, "function"))], "ops"),
    Panel("Share that does not succeed", [
        Query(
            f"{rate('invoker_runs_finished_total', ONE + ',state!=' + chr(34) + 'succeeded' + chr(34), 'function')}"
            f" / {rate('invoker_runs_finished_total', ONE, 'function')}"
        ),
    ], "percentunit"),
    Panel("How runs end", [Query(rate("invoker_runs_finished_total", ONE, "state", "reason"))], "ops", stacked=True),
    Panel("Duration, p95", [Query(quantile(0.95, "invoker_run_duration_seconds", ONE, "function"))], "s"),
    Panel("From event to start, p95", [Query(quantile(0.95, "invoker_run_queue_seconds", ONE, "function"))], "s"),
    Panel("From start to running, p95", [Query(quantile(0.95, "invoker_run_start_seconds", ONE, "function"))], "s"),
    Panel("Attempts that failed", [
        Query(rate("invoker_attempts_total", f'{ONE},reason!="completed"', "function", "reason")),
    ], "ops", stacked=True),
    Panel("In hand", [Query(f"sum by (function) (invoker_runs_active{{{ONE}}})")]),
    Panel("Accepted and not finished", [
        Query(
            f"sum by (function) (increase(invoker_runs_accepted_total{{{ONE}}}[$__range]))"
            f" - sum by (function) (increase(invoker_runs_finished_total{{{ONE}}}[$__range]))"
        ),
    ], text="How the backlog of each function has grown over the time shown"),
]  # fmt: skip

CAPACITY = [
    Panel("Use of each function's concurrency", [
        Query(
            f"sum by ({EACH}, function) (invoker_runs_active{{{ONE}}})"
            f" / max by ({EACH}, function) (invoker_function_concurrency{{{ONE}}})"
        ),
    ], "percentunit", text="1: more runs of it wait, whatever the cluster has free"),
    Panel("Use of each controller", [
        Query(f"sum by (instance) (invoker_runs_active{{{HERE}}}) / max by (instance) (invoker_runs_limit{{{HERE}}})"),
    ], "percentunit", text="INVOKER_MAX_RUNNING"),
    Panel("Late heartbeats", [Query(rate("invoker_heartbeats_late_total", HERE, "instance"))], "ops"),
    Panel("Size of the streams", [Query(f"max by ({EACH}, stream) (invoker_stream_bytes{{{HERE}}})")], "bytes"),
    Panel("Streams that have a bound, how full", [
        Query(
            f"max by ({EACH}, stream) (invoker_stream_bytes{{{HERE}}})"
            f" / max by ({EACH}, stream) (invoker_stream_limit_bytes{{{HERE}}} < Inf)"
        ),
    ], "percentunit"),
    Panel("Requests to the engine's side", [Query(rate("invoker_engine_requests_total", HERE, "engine", "reason"))],
          "reqps", stacked=True),
    Panel("Memory", [Query(f"process_resident_memory_bytes{{{HERE}}} and on (job, instance) invoker_build_info")],
          "bytes"),
    Panel("Processor", [
        Query(f"rate(process_cpu_seconds_total{{{HERE}}}[$__rate_interval]) and on (job, instance) invoker_build_info"),
    ], "percentunit", text="1 is one core"),
    Panel("Open files", [Query(f"process_open_fds{{{HERE}}} and on (job, instance) invoker_build_info")]),
    Panel("Publishes", [Query(rate("invoker_events_published_total", HERE, "reason"))], "ops", stacked=True,
          text="By gateways, functions and stages; plain NATS publishers are not seen here"),
    Panel("Calls refused", [
        Query(rate("invoker_http_logins_refused_total", HERE, "reason")),
        Query(rate("invoker_http_calls_limited_total", HERE, "reason")),
        total("invoker_http_answers_refused_total", HERE, "answers to /response/"),
    ], "reqps"),
    Panel("Results read", [Query(rate("invoker_results_read_total", HERE, "source"))], "reqps", stacked=True),
    Panel("Results in Redis", [
        Query(f"max by (source) (invoker_results_behind{{{HERE}}})", "messages behind"),
        Query(f'min by (source) (invoker_results_store_up{{{HERE},source="redis"}})', "reachable"),
    ]),
    Panel("Event streams and lists of gateways", [
        Query(f"sum(invoker_http_event_streams{{{HERE}}})", "open event streams"),
        Query(f"max(invoker_recent_runs{{{HERE}}})", "runs in lists"),
        Query(f"min(invoker_recent_runs_loaded{{{HERE}}})", "lists loaded"),
    ]),
    Panel("Catalog and connections", [
        Query(f"sum(increase(invoker_catalog_loads_total{{{HERE}}}[$__rate_interval]))", "catalogs loaded"),
        Query(f"min(invoker_catalog_readable{{{HERE}}})", "catalog readable"),
        Query(f"sum(increase(invoker_nats_reconnects_total{{{HERE}}}[$__rate_interval]))", "reconnects to NATS"),
        Query(f"min(invoker_controllers_answer{{{HERE}}})", "controllers answer"),
    ]),
    Panel("Spans of traces", [Query(rate("invoker_spans_total", HERE, "reason"))], "ops", stacked=True,
          text="dropped: the collector is away or too slow"),
]  # fmt: skip

ROWS = {"Overview": OVERVIEW, "Functions": FUNCTIONS, "Capacity": CAPACITY}


def variable(name: str, label: str, query: str) -> dict[str, Any]:
    """A variable whose values are asked for; `All` is any value, so that it also fits series without the label."""
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name},
        "definition": query, "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]}, "options": [], "regex": "", "hide": 0,
    }  # fmt: skip


VARIABLES = [
    {
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1,
        "current": {}, "options": [], "regex": "", "multi": False, "includeAll": False, "hide": 0,
    },
    variable("namespace", "Namespace", "label_values(invoker_build_info, namespace)"),
    variable(
        "installation", "Installation",
        'label_values(invoker_build_info{namespace=~"$namespace"}, invoker_dev_installation)',
    ),
    variable("instance", "Instance", f"label_values(invoker_build_info{{{PLACE}}}, instance)"),
    variable("function", "Function", f"label_values(invoker_runs_active{{{HERE}}}, function)"),
]  # fmt: skip


def drawn(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    """A panel as Grafana wants it."""
    custom: dict[str, Any] = {}
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "value_and_name"}
    if panel.kind == "timeseries":
        custom = {"fillOpacity": 20 if panel.stacked else 0, "showPoints": "never", "lineWidth": 1}
        custom["stacking"] = {"mode": "normal" if panel.stacked else "none"}
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.text, "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query.expr, "legendFormat": query.legend}
            for index, query in enumerate(panel.queries)
        ],
    }  # fmt: skip


def laid_out() -> Iterator[dict[str, Any]]:
    """Rows and panels, from left to right and downwards."""
    number, y = 1, 0
    for title, panels in ROWS.items():
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
               "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}}  # fmt: skip
        x, y, deepest = 0, y + 1, 0
        for panel in panels:
            number += 1
            if x + panel.width > COLUMNS or (x and panel.height != deepest):
                x, y, deepest = 0, y + deepest, 0
            yield drawn(panel, number, x, y)
            x, deepest = x + panel.width, panel.height
        number, y = number + 1, y + deepest


def dashboard() -> dict[str, Any]:
    """The whole dashboard."""
    return {
        "title": "Invoker", "uid": "invoker", "tags": ["invoker"], "schemaVersion": 39, "editable": True,
        "description": "Events, runs and results of Invoker; docs/metrics.md says what each metric means",
        "time": {"from": "now-3h", "to": "now"}, "refresh": "30s", "timezone": "", "graphTooltip": 1,
        "annotations": {"list": []}, "links": [], "templating": {"list": VARIABLES}, "panels": list(laid_out()),
    }  # fmt: skip


def main(arguments: list[str]) -> int:
    text = json.dumps(dashboard(), indent=1) + "\n"
    if FILE.exists() and FILE.read_text() == text:
        return 0
    if not arguments:
        FILE.write_text(text)
    print(f"{'behind' if arguments else 'wrote'} {FILE.name}")
    return 1 if arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
