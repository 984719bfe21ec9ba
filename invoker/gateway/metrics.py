"""Every metric of a gateway, defined once. Labels come from bounded sets: routes are templates, never paths.

Everything that is asked for is there from the start, at zero: an alert on an increase misses the first one of a series
that appears with it. Other answers of a route than `EXPECTED_CODES` appear with their first call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from invoker.errors import LOGIN_FAULTS
from invoker.exposition import Counter, Gauge, Histogram, begun_registry, exposition_of
from invoker.publish import PUBLISH_OUTCOMES

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
"""The methods that are counted by name; a caller may make up others."""
RATE_POLICIES = ("address", "key")
EXPECTED_CODES = ("200", "202", "403", "500", "503")
"""The answers that every route has from the start: what alerts and people look for an increase of."""

CallRoute: TypeAlias = tuple[str, Iterable[str]]
"""A route: the template of its path, and the methods it takes."""


class GatewayMetrics:
    """The metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = begun_registry("gateway")

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"invoker_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"invoker_{name}", text, labels, registry=registry)

        self.http_requests = counter("http_requests", "Calls answered", "route", "method", "code")
        self.http_request_seconds = Histogram(
            "invoker_http_request_duration_seconds", "From the head of a call to the end of its answer",
            ("route", "method"), registry=registry, buckets=BUCKETS,
        )  # fmt: skip
        self.calls_limited = counter(
            "http_calls_limited", "Calls refused because there were too many of one address or key", "reason"
        )
        self.logins_refused = counter(
            "http_logins_refused", "Calls refused because of the key or token that they showed, or did not", "reason"
        )
        self.events_published = counter(
            "events_published",
            "Publishes for callers and functions; reason stored, duplicate, or an error's code",
            "reason",
        )
        self.event_streams = gauge("http_event_streams", "Open event streams")
        self.answers_refused = counter("http_answers_refused", "Answers of functions refused at /response/")
        self.results_read = counter("results_read", "Requests read, by the store that answered", "source")
        self.results_store_up = gauge("results_store_up", "1 while the store of results answers", "source")
        self.results_behind = gauge("results_behind", "Messages of RESULTS that the copy does not have yet", "source")
        self.recent_runs = gauge("recent_runs", "Finished runs kept in memory for lists")
        self.recent_runs_loaded = gauge("recent_runs_loaded", "1 once they have been read; lists are slower before")
        self.nats_connected = gauge("nats_connected", "1 while connected to NATS")
        self.controllers_answer = gauge("controllers_answer", "1 while a controller answers questions about functions")
        for policy in RATE_POLICIES:
            self.calls_limited.labels(policy)
        for fault in LOGIN_FAULTS:
            self.logins_refused.labels(fault)
        for outcome in PUBLISH_OUTCOMES:
            self.events_published.labels(outcome)
        self.results_read.labels("nats")
        self.results_store_up.labels("nats").set(0)

    def expect_calls(self, routes: Iterable[CallRoute]) -> None:
        """The calls that may come: counted from zero from here on."""
        for path, methods in routes:
            for method in set(methods) & set(METHODS) - {"HEAD", "OPTIONS"}:
                self.http_request_seconds.labels(path, method)
                for code in EXPECTED_CODES:
                    self.http_requests.labels(path, method, code)

    def published(self, outcome: str) -> None:
        """Count a publish that ended so."""
        self.events_published.labels(outcome).inc()

    def told_store(self, source: str, *, up: bool, behind: int | None = None) -> None:
        """Whether a store of results answers, and of a copy how much it lacks."""
        self.results_read.labels(source)
        self.results_store_up.labels(source).set(1 if up else 0)
        if behind is not None:
            self.results_behind.labels(source).set(max(0, behind))

    def exposition(self) -> bytes:
        """The present values in Prometheus' text format."""
        return exposition_of(self.registry)
