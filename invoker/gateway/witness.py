"""What remains of every call: its count, and for calls that change something an audit line."""

from __future__ import annotations

import structlog

from invoker.errors import InvokerError, RateLimitedError, UnauthorizedError
from invoker.gateway.door import Call, changes
from invoker.gateway.metrics import METHODS, GatewayMetrics
from invoker.gateway.run_address import PATH_PREFIX

_audit = structlog.get_logger(component="audit")


class CallWitness:
    """Counts calls, and writes one audit line per changing call: who, what, from where, how it ended."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics

    def refused(self, error: InvokerError) -> None:
        if isinstance(error, RateLimitedError):
            self._metrics.calls_limited.labels(error.policy).inc()
        elif isinstance(error, UnauthorizedError):
            self._metrics.logins_refused.labels(error.fault).inc()

    def finished(self, call: Call) -> None:
        method = call.method if call.method in METHODS else "other"
        self._metrics.http_requests.labels(call.route, method, str(call.status)).inc()
        self._metrics.http_request_seconds.labels(call.route, method).observe(call.seconds)
        # What a function says about its own run is no order of a caller; it is seen in the run's result.
        if changes(call.method, call.route) and not call.route.startswith(PATH_PREFIX):
            _audit.info(
                "call", call_id=call.id, caller=call.caller, address=call.address, method=call.method,
                route=call.route, status=call.status, duration_ms=round(call.seconds * 1000, 1), ids=dict(call.ids),
                **call.trace,
            )  # fmt: skip
