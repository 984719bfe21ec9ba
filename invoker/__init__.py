"""Invoker: one event in, one run per matching function, one result out, on NATS and Kubernetes.

Public names are loaded on first use, so importing a part (above all `invoker.runtime`, which runs inside functions)
never loads the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from invoker.version import __version__

if TYPE_CHECKING:
    from invoker.client import Client
    from invoker.errors import InvokerError
    from invoker.http.client import HttpClient
    from invoker.request import ClaimCheck, RequestRecord
    from invoker.result import Attempt, Reason, Result, State
    from invoker.tracing_switch import traced

_HOMES = {
    "Attempt": "invoker.result",
    "ClaimCheck": "invoker.request",
    "Client": "invoker.client",
    "HttpClient": "invoker.http.client",
    "InvokerError": "invoker.errors",
    "Reason": "invoker.result",
    "RequestRecord": "invoker.request",
    "Result": "invoker.result",
    "State": "invoker.result",
    "traced": "invoker.tracing_switch",
}

__all__ = [
    "Attempt",
    "ClaimCheck",
    "Client",
    "HttpClient",
    "InvokerError",
    "Reason",
    "RequestRecord",
    "Result",
    "State",
    "__version__",
    "traced",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'invoker' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
