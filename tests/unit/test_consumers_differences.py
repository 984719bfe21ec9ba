"""Consumers are compared, not changed; and what they know of adds up to the messages there are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nats.js import api

from trigger.consumers import Backlog, differences
from trigger.keep import accounted_for

WANTED = api.ConsumerConfig(
    durable_name="run-f", filter_subject="invoker.run.f.*", ack_policy=api.AckPolicy.EXPLICIT, ack_wait=10.0,
    max_ack_pending=3, max_deliver=-1,
)  # fmt: skip


def test_equal_is_equal() -> None:
    assert differences(WANTED, replace(WANTED)) == []


def test_the_limit_follows_the_catalog_and_is_no_difference() -> None:
    assert differences(WANTED, replace(WANTED, max_ack_pending=500)) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ack_wait": 30.0}, "ack_wait is 30.0, must be 10.0"),
        ({"filter_subject": "invoker.run.g.*"}, "filter_subject is invoker.run.g.*, must be invoker.run.f.*"),
        ({"max_deliver": 5}, "max_deliver is 5, must be -1"),
        ({"ack_policy": api.AckPolicy.NONE}, "ack_policy is"),
    ],
)
def test_every_other_setting_is_named(changed: dict[str, object], words: str) -> None:
    found = differences(WANTED, replace(WANTED, **changed))
    assert len(found) == 1
    assert words in found[0]


def test_unset_and_empty_are_the_same() -> None:
    assert differences(replace(WANTED, filter_subject=None), replace(WANTED, filter_subject="")) == []


def test_what_consumers_know_of() -> None:
    assert accounted_for({}) == 0
    assert accounted_for({"f": Backlog(3, 2, False), "g": Backlog(0, 1, True)}) == 6
