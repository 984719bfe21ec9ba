"""Whether a plan's Job may be created here: the operator's policy, looked at once for each version of a function. Pure.

A request changes no Job's shape, only some of its texts, so a version that was allowed once is allowed. A version that
was refused is looked at again with its next run: what was wrong may have been that one request's text, and no caller
may lock a function for all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from invoker.errors import StartRefusedError
from invoker.result import Reason
from trigger.kubernetes_engine.policy import Policy, refusals
from trigger.plan import RunPlan

MAX_REMEMBERED = 1000
_MAX_SENTENCE = 1000


class Admission:
    """The versions that were found allowed under one policy."""

    def __init__(self) -> None:
        self._allowed: set[tuple[str, str]] = set()

    def check(self, plan: RunPlan, manifest: Mapping[str, Any], policy: Policy) -> None:
        """Raise `StartRefusedError` (refused) for a Job that the operator does not allow, with every reason."""
        version = plan.function, plan.spec_hash
        if version in self._allowed:
            return
        found = refusals(manifest, policy)
        if found:
            sentence = f"the Job of {plan.function} is not allowed here: {'; '.join(found)}"
            raise StartRefusedError(sentence[:_MAX_SENTENCE], reason=str(Reason.REFUSED))
        if len(self._allowed) >= MAX_REMEMBERED:
            self._allowed.clear()
        self._allowed.add(version)
