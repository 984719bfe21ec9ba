"""Whether this process traces: the standard OTEL_… variables decide, none of ours. A settings module.

On when OTEL_TRACES_EXPORTER is `otlp`, or is not set while an OTLP endpoint is; off in any other case, and whenever
OTEL_SDK_DISABLED is true. What the other variables say (sampling, headers, resource) OpenTelemetry reads itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from invoker import tracing
from invoker.errors import SettingsError

if TYPE_CHECKING:
    from invoker.otel import OtlpTracing

_ENVIRON = os.environ  # noqa: TID251 - this is the settings module of tracing
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"


@dataclass(frozen=True, slots=True)
class Wish:
    """Tracing is wanted, because of this variable; seconds and spans of its queue."""

    variable: str
    delay_seconds: float
    queue: int
    batch: int


def wish_of(environ: Mapping[str, str]) -> Wish | None:
    """What the variables ask for; None when tracing is off. Raises `SettingsError` for what cannot be had. Pure."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    named = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if named not in ("", "none", "otlp"):
        raise SettingsError(
            f"OTEL_TRACES_EXPORTER: {named[:80]!r} is not sent by Invoker", hint="otlp is, and none switches it off"
        )
    variable = "OTEL_TRACES_EXPORTER" if named else next((name for name in ENDPOINTS if environ.get(name)), None)
    if named == "none" or variable is None:
        return None
    for name in PROTOCOLS:
        if (protocol := environ.get(name, "").strip().lower() or PROTOCOL) != PROTOCOL:
            raise SettingsError(
                f"{name}: {protocol[:80]!r} is not spoken by Invoker", hint=f"{PROTOCOL} is; its usual port is 4318"
            )
    return Wish(
        variable,
        _number(environ, "OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000,
        _number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 2048),
        _number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512),
    )


@contextmanager
def traced(service: str, environ: Mapping[str, str] = _ENVIRON, *, needed: bool = True) -> Iterator[None]:
    """While this is entered the process traces, if the OTEL_… variables ask for it: what it publishes and calls has
    spans, below the one that the program is in when it uses OpenTelemetry itself.

    `service` is the name for a process that OTEL_SERVICE_NAME does not name. What is left is sent at the end, for three
    seconds at most. Raises `SettingsError` for variables that cannot be used, or when the extra is not installed; where
    tracing is not `needed` it stays off then.
    """
    exporter = _wished(service, environ, needed)
    if exporter is None:
        yield
        return
    before = tracing.use(exporter)
    try:
        yield
    finally:
        tracing.use(before)
        exporter.close()


def _wished(service: str, environ: Mapping[str, str], needed: bool) -> OtlpTracing | None:
    try:
        wish = wish_of(environ)
        return _opened(service, wish) if wish is not None else None
    except SettingsError:
        if needed:
            raise
        return None


def _opened(service: str, wish: Wish) -> OtlpTracing:
    try:
        from invoker.otel import Batching, OtlpTracing
    except ImportError as error:
        raise SettingsError(
            f"{wish.variable} asks for traces, and OpenTelemetry is not installed here ({error.name} is missing)",
            hint="pip install '.[otel]' in the checkout of Invoker, or unset it, or set OTEL_SDK_DISABLED=true",
        ) from error
    return OtlpTracing(service, Batching(wish.delay_seconds, wish.queue, min(wish.batch, wish.queue)))


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:10]) < 10**9:
        raise SettingsError(f"{name}: {text[:80]!r} is no whole number above 0")
    return int(text)
