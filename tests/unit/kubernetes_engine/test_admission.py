"""The Jobs of a version are looked at once; what one request's value is refused for locks no function."""

from __future__ import annotations

import pytest

from invoker.errors import StartRefusedError
from tests.unit.kubernetes_engine.planned_jobs import POLICY, made, plan
from trigger.kubernetes_engine.admission import MAX_REMEMBERED, Admission


def test_one_requests_value_locks_no_function() -> None:
    admission = Admission()
    large, usual = plan(env={"A": "x" * 300_000}), plan()
    for of in (large, large):
        with pytest.raises(StartRefusedError, match=r"the Job of convert is not allowed here: .* is longer than") as no:
            admission.check(of, made(of), POLICY)
        assert no.value.fields["reason"] == "refused"
        assert len(no.value.message) <= 1000
    admission.check(usual, made(usual), POLICY)


def test_a_version_that_is_allowed_is_looked_at_once() -> None:
    admission = Admission()
    admission.check(plan(), made(plan()), POLICY)
    admission.check(plan(), {"not": "looked at"}, POLICY)
    for other in (plan(spec_hash="x"), plan(function="x")):
        with pytest.raises(StartRefusedError):
            admission.check(other, {"not": "a Job"}, POLICY)
    for number in range(MAX_REMEMBERED):
        admission.check(plan(spec_hash=str(number)), made(plan()), POLICY)
    with pytest.raises(StartRefusedError):
        admission.check(plan(), {"not": "a Job"}, POLICY)
