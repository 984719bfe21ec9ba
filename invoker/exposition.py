"""What the metrics of every program of ours have in common: a registry of their own, the build, the process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric

from invoker import tracing
from invoker.version import __version__

__all__ = ["Counter", "Gauge", "Histogram", "Registry", "begun_registry", "exposition_of"]

Registry: TypeAlias = CollectorRegistry

# Each counter and histogram would have one more series, the time it was made, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it without types


class _SpanCounts:
    """What became of the spans of this process; the exporter counts them, and there may be none."""

    def collect(self) -> Iterator[Metric]:
        counted = tracing.counted()
        spans = CounterMetricFamily("invoker_spans", "Spans of traces; reason sent or dropped", labels=["reason"])
        spans.add_metric(["sent"], counted.sent)
        spans.add_metric(["dropped"], counted.dropped)
        yield spans


def begun_registry(component: str) -> Registry:
    """A registry with what every process tells: which program and version it is, its memory, processor, files, spans.

    A registry of its own for each, so that two programs in one process (`invoker dev`, tests) stay apart.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Gauge(
        "invoker_build_info", "1; which program and version this is", ("component", "version"), registry=registry
    )
    build.labels(component, __version__).set(1)
    registry.register(_SpanCounts())
    return registry


def exposition_of(registry: Registry) -> bytes:
    """The present values in Prometheus' text format."""
    return generate_latest(registry)
