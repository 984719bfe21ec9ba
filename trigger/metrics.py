"""Every metric, defined once. Labels come from bounded sets only: never an id, never a topic."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class Metrics:
    """The metrics of one controller, in a registry of their own, so that two controllers in one process stay apart."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"invoker_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"invoker_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"invoker_{name}", text, labels, registry=registry, buckets=_BUCKETS)

        self.events_received = counter("events_received", "Events handed to intake", "stream")
        self.events_unmatched = counter("events_unmatched", "Requests that matched no subscription")
        self.events_dead = counter("events_dead", "Events that became dead letters", "reason")
        self.runs_accepted = counter("runs_accepted", "Runs queued", "function")
        self.runs_started = counter("runs_started", "Runs given to the engine", "function", "engine")
        self.runs_finished = counter("runs_finished", "Runs finished and acked", "function", "state", "reason")
        self.runs_active = gauge("runs_active", "Runs held by this controller", "function")
        self.run_queue_seconds = histogram("run_queue_seconds", "From received to given to the engine", "function")
        self.run_start_seconds = histogram("run_start_seconds", "From given to the engine to running", "function")
        self.run_duration_seconds = histogram("run_duration_seconds", "From running to ended", "function")
        self.reply_delay_seconds = histogram("reply_delay_seconds", "From result stored to reply sent", "function")
        self.attempts = counter("attempts", "Attempts that ended", "function", "reason")
        self.engine_requests = counter("engine_requests", "Requests to the engine's side", "engine", "reason")
        self.stream_pending = gauge("stream_pending", "Messages waiting in a stream", "stream")
        self.nats_connected = gauge("nats_connected", "1 while connected to NATS")
        self.catalog_loads = counter("catalog_loads", "Catalog snapshots taken into use")
        self.catalog_functions = gauge("catalog_functions", "Functions in the catalog")
        self.catalog_broken_functions = gauge("catalog_broken_functions", "Functions that cannot be loaded now")
        self.heartbeats_late = counter("heartbeats_late", "Heartbeats of held runs sent too late")

    def exposition(self) -> bytes:
        """The present values in Prometheus' text format."""
        return generate_latest(self.registry)
