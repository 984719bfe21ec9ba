"""The gateway's metrics, defined once. Labels come from bounded sets: routes are templates, never paths."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class GatewayMetrics:
    """The metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.http_requests = Counter(
            "invoker_http_requests", "Calls answered", ("route", "method", "code"), registry=registry
        )
        self.http_request_seconds = Histogram(
            "invoker_http_request_duration_seconds", "From the head of a call to the end of its answer",
            ("route", "method"), registry=registry, buckets=_BUCKETS,
        )  # fmt: skip
        self.event_streams = Gauge("invoker_http_event_streams", "Open event streams", registry=registry)
        self.answers_refused = Counter(
            "invoker_http_answers_refused", "Answers of functions refused at /response/", registry=registry
        )
        self.results_read = Counter(
            "invoker_results_read", "Requests read, by the store that answered", ("source",), registry=registry
        )
        self.recent_runs = Gauge("invoker_recent_runs", "Finished runs kept in memory for lists", registry=registry)
        self.recent_runs_loaded = Gauge(
            "invoker_recent_runs_loaded", "1 once they have been read; lists are slower before", registry=registry
        )
        self.nats_connected = Gauge("invoker_nats_connected", "1 while connected to NATS", registry=registry)

    def exposition(self) -> bytes:
        """The present values in Prometheus' text format."""
        return generate_latest(self.registry)
