"""Every metric of a controller, defined once. Labels come from bounded sets only: never an id, never a topic.

Everything is there from the start, at zero: an alert on an increase misses the first one of a series that appears with
it. The series of a function come when it is first heard of, and go some time after it has gone.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from invoker import wire
from invoker.exposition import Counter, Gauge, Histogram, begun_registry, exposition_of
from invoker.publish import PUBLISH_OUTCOMES
from invoker.result import Reason, State
from trigger.verdict import Verdict

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
KEPT_SECONDS = 600.0
"""How long the series of a function stay after it has gone: its last runs must be seen by some scrapes."""
DEAD_REASONS = (
    "claim-check", "hop-limit", "idempotency-mismatch", "internal", "invalid-reply-subject", "invalid-request-id",
    "invalid-topic", "no-subscription", "payload-too-large", "stream-mismatch",
)  # fmt: skip
"""The codes of errors that an event can become a dead letter for: what cannot be accepted, and next events that were
refused for good."""
_NAMES = wire.Names()
_ENDINGS = tuple((str(Verdict(reason).final_state), str(reason)) for reason in Reason)
_NEVER_STARTED = {Reason.FUNCTION_REMOVED, Reason.EXPIRED_IN_QUEUE}
_ATTEMPT_REASONS = tuple(str(reason) for reason in Reason if reason not in _NEVER_STARTED)


@dataclass(frozen=True, slots=True)
class StreamLevel:
    """What a stream holds at a moment. `limit_bytes` is None for one without a bound."""

    messages: int
    bytes: int
    limit_bytes: int | None
    oldest_seconds: float


def measured_streams(names: wire.Names) -> tuple[str, ...]:
    """The streams whose levels are told: all that are kept on disk."""
    return (
        names.events_stream, names.runs_stream, names.results_stream, names.dead_stream, f"OBJ_{names.payloads_bucket}",
    )  # fmt: skip


class FunctionMetrics:
    """The series of one function, all of them at zero to begin with."""

    def __init__(self, metrics: Metrics, function: str) -> None:
        self._metrics, self._function = metrics, function
        self._endings, self._reasons = set(_ENDINGS), set(_ATTEMPT_REASONS)
        self.accepted = metrics.runs_accepted.labels(function)
        self.started = metrics.runs_started.labels(function, metrics.engine)
        self.active = metrics.runs_active.labels(function)
        self.concurrency = metrics.function_concurrency.labels(function)
        self.queue_seconds = metrics.run_queue_seconds.labels(function)
        self.start_seconds = metrics.run_start_seconds.labels(function)
        self.duration_seconds = metrics.run_duration_seconds.labels(function)
        self.reply_delay_seconds = metrics.reply_delay_seconds.labels(function)
        for state, reason in _ENDINGS:
            metrics.runs_finished.labels(function, state, reason)
        for reason in _ATTEMPT_REASONS:
            metrics.attempts.labels(function, reason)

    def finished(self, state: State, reason: Reason) -> None:
        """Count a run that is finished and acked."""
        ending = (str(state), str(reason))
        self._endings.add(ending)  # a run may end in another state than its reason usually does
        self._metrics.runs_finished.labels(self._function, *ending).inc()

    def attempt_ended(self, reason: Reason | None) -> None:
        """Count an attempt; None is one that ended well."""
        self._reasons.add(str(reason or Reason.COMPLETED))
        self._metrics.attempts.labels(self._function, str(reason or Reason.COMPLETED)).inc()

    def remove(self) -> None:
        """Take all of them out of the exposition."""
        metrics, function = self._metrics, self._function
        for metric in (
            metrics.runs_accepted, metrics.runs_active, metrics.function_concurrency, metrics.run_queue_seconds,
            metrics.run_start_seconds, metrics.run_duration_seconds, metrics.reply_delay_seconds,
        ):  # fmt: skip
            metric.remove(function)
        metrics.runs_started.remove(function, metrics.engine)
        for ending in self._endings:
            metrics.runs_finished.remove(function, *ending)
        for reason in self._reasons:
            metrics.attempts.remove(function, reason)


class Metrics:
    """The metrics of one controller, in a registry of their own, so that two controllers in one process stay apart."""

    def __init__(self, engine: str = "local", names: wire.Names = _NAMES) -> None:
        self.engine = engine
        self.registry = registry = begun_registry("controller")

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"invoker_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"invoker_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"invoker_{name}", text, labels, registry=registry, buckets=BUCKETS)

        self.events_received = counter("events_received", "Events handed to intake, redelivered ones again", "stream")
        self.events_unmatched = counter("events_unmatched", "Requests that matched no subscription")
        self.events_dead = counter("events_dead", "Events that became dead letters", "reason")
        self.events_published = counter(
            "events_published",
            "Publishes by functions and stages; reason stored, duplicate, or an error's code",
            "reason",
        )
        self.runs_accepted = counter("runs_accepted", "Runs queued", "function")
        self.runs_started = counter("runs_started", "Runs given to the engine", "function", "engine")
        self.runs_finished = counter("runs_finished", "Runs finished and acked", "function", "state", "reason")
        self.runs_active = gauge("runs_active", "Runs held by this controller", "function")
        self.runs_limit = gauge("runs_limit", "Runs that this controller starts at most at once (INVOKER_MAX_RUNNING)")
        self.function_concurrency = gauge(
            "function_concurrency", "Runs that all controllers together have at most at once (concurrency)", "function"
        )
        self.run_queue_seconds = histogram("run_queue_seconds", "From received to given to the engine", "function")
        self.run_start_seconds = histogram("run_start_seconds", "From given to the engine to running", "function")
        self.run_duration_seconds = histogram("run_duration_seconds", "From running to ended", "function")
        self.reply_delay_seconds = histogram(
            "reply_delay_seconds", "From the end of a run to its reply sent; storing the result is in it", "function"
        )
        self.attempts = counter("attempts", "Attempts that ended", "function", "reason")
        self.engine_requests = counter(
            "engine_requests", "Requests to the engine's side; reason is the verb and what it was answered",
            "engine", "reason",
        )  # fmt: skip
        self.stream_pending = gauge("stream_pending", "Messages in a stream; every controller tells the same", "stream")
        self.stream_bytes = gauge("stream_bytes", "Bytes that a stream holds", "stream")
        self.stream_limit_bytes = gauge(
            "stream_limit_bytes", "Bytes that a stream may hold, +Inf without bound", "stream"
        )
        self.stream_oldest_seconds = gauge("stream_oldest_seconds", "Age of a stream's oldest message", "stream")
        self.nats_connected = gauge("nats_connected", "1 while connected to NATS")
        self.nats_reconnects = counter("nats_reconnects", "Connections to NATS that were made again")
        self.catalog_loads = counter("catalog_loads", "Catalog snapshots taken into use")
        self.catalog_functions = gauge("catalog_functions", "Functions in the catalog")
        self.catalog_broken_functions = gauge("catalog_broken_functions", "Functions that cannot be loaded now")
        self.catalog_readable = gauge("catalog_readable", "1 while the catalog can be read as a whole")
        self.heartbeats_late = counter("heartbeats_late", "Heartbeats of held runs sent too late")
        self._functions: dict[str, FunctionMetrics] = {}
        self._seen_at: dict[str, float] = {}
        self._following = threading.Lock()
        for reason in DEAD_REASONS:
            self.events_dead.labels(reason)
        for reason in PUBLISH_OUTCOMES:
            self.events_published.labels(reason)
        self.events_received.labels(names.events_stream)
        for stream in measured_streams(names):
            self.told_stream(stream, StreamLevel(0, 0, None, 0.0))

    def of(self, function: str) -> FunctionMetrics:
        """The series of that function; they are there, at zero, from the first call on."""
        known = self._functions.get(function)
        if known is None:
            known = self._functions[function] = FunctionMetrics(self, function)
        return known

    def published(self, outcome: str) -> None:
        """Count a publish that ended so."""
        self.events_published.labels(outcome).inc()

    def told_stream(self, stream: str, level: StreamLevel) -> None:
        """A stream's level, as of now."""
        self.stream_pending.labels(stream).set(level.messages)
        self.stream_bytes.labels(stream).set(level.bytes)
        self.stream_limit_bytes.labels(stream).set(math.inf if level.limit_bytes is None else level.limit_bytes)
        self.stream_oldest_seconds.labels(stream).set(level.oldest_seconds)

    def requested(self, reason: str) -> None:
        """Count a request to the engine's side that was answered so."""
        self.engine_requests.labels(self.engine, reason).inc()

    def expect_requests(self, reasons: Iterable[str]) -> None:
        """What the engine's side may be asked and answer: zero from here on."""
        for reason in reasons:
            self.engine_requests.labels(self.engine, reason)

    def follow_functions(self, concurrency: Mapping[str, int | None], active: Mapping[str, int], now: float) -> None:
        """The functions there are (with their concurrency) and the runs held of each, as of `now`, a monotonic time.

        What is in neither goes away after `KEPT_SECONDS`. May be called in any thread.
        """
        with self._following:
            for function, limit in concurrency.items():
                self.of(function).concurrency.set(math.inf if limit is None else limit)
            for function in concurrency.keys() | active.keys():
                self.of(function)
                self._seen_at[function] = now
            for function, series in list(self._functions.items()):
                series.active.set(active.get(function, 0))
                if now - self._seen_at.setdefault(function, now) > KEPT_SECONDS:
                    del self._functions[function], self._seen_at[function]
                    series.remove()

    def exposition(self) -> bytes:
        """The present values in Prometheus' text format. With very many functions it takes a second: not for a loop."""
        return exposition_of(self.registry)
