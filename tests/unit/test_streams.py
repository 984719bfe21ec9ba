"""The streams as they must be, and the words for what is different. On a server: `test_results_nats`."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from nats.js import api

from invoker import wire
from invoker.streams import StreamLimits, differences, stream_configs

NAMES = wire.Names()
LIMITS = StreamLimits(retention_seconds=3600.0, events_bytes=10, results_bytes=20, replicas=3)


def configs(limits: StreamLimits = LIMITS) -> dict[str, api.StreamConfig]:
    return {config.name or "": config for config in stream_configs(NAMES, limits)}


def test_the_table_of_the_design() -> None:
    found = configs()
    assert list(found) == [
        "INVOKER_EVENTS", "INVOKER_RUNS", "INVOKER_RESULTS", "INVOKER_STATUS", "INVOKER_DEAD", "OBJ_INVOKER_PAYLOADS",
    ]  # fmt: skip
    assert {name: config.retention for name, config in found.items() if name in ("INVOKER_EVENTS", "INVOKER_RUNS")} == {
        "INVOKER_EVENTS": api.RetentionPolicy.WORK_QUEUE,
        "INVOKER_RUNS": api.RetentionPolicy.WORK_QUEUE,
    }


def test_work_queues_have_no_age() -> None:
    """An outage of any length loses nothing."""
    for name in ("INVOKER_EVENTS", "INVOKER_RUNS"):
        assert configs()[name].max_age == 0


def test_a_full_stream_refuses_and_never_forgets() -> None:
    for name in ("INVOKER_EVENTS", "INVOKER_RUNS", "INVOKER_RESULTS"):
        assert configs()[name].discard is api.DiscardPolicy.NEW
    assert configs()["INVOKER_EVENTS"].max_bytes == 10
    assert configs()["INVOKER_RESULTS"].max_bytes == 20


def test_records_and_results_are_create_only_and_of_one_age() -> None:
    results = configs()["INVOKER_RESULTS"]
    assert results.subjects == ["invoker.accepted.*", "invoker.result.*.*"]
    assert (results.max_msgs_per_subject, results.discard_new_per_subject) == (1, True)
    assert (results.max_age, results.deny_delete, results.deny_purge) == (3600.0, True, True)
    assert results.allow_direct


def test_runs_are_create_only() -> None:
    runs = configs()["INVOKER_RUNS"]
    assert (runs.max_msgs_per_subject, runs.discard_new_per_subject) == (1, True)


def test_consumers_are_not_limited_by_the_servers_default() -> None:
    for name in ("INVOKER_EVENTS", "INVOKER_RUNS", "INVOKER_RESULTS"):
        assert (configs()[name].max_consumers or 0) > 1000


def test_a_duplicate_window_is_never_longer_than_the_age() -> None:
    """The server refuses such a stream."""
    for config in stream_configs(NAMES, StreamLimits(retention_seconds=5.0)):
        if config.max_age and config.duplicate_window:
            assert config.duplicate_window <= config.max_age


def test_replicas_are_for_what_must_last() -> None:
    replicas = {name: config.num_replicas for name, config in configs().items()}
    assert replicas.pop("INVOKER_STATUS") == 1
    assert set(replicas.values()) == {3}


def test_two_instances_share_nothing() -> None:
    blue, green = stream_configs(wire.Names("blue", "b"), LIMITS), stream_configs(wire.Names("green", "g"), LIMITS)
    assert not {config.name for config in blue} & {config.name for config in green}
    assert not {subject for config in blue for subject in config.subjects or []} & {
        subject for config in green for subject in config.subjects or []
    }


@pytest.mark.parametrize("config", stream_configs(NAMES, LIMITS), ids=lambda config: config.name)
def test_nothing_differs_from_itself(config: api.StreamConfig) -> None:
    assert differences(config, dataclasses.replace(config)) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subjects", ["other.>"]),
        ("retention", api.RetentionPolicy.LIMITS),
        ("max_age", 7.0),
        ("max_bytes", 1),
        ("discard", api.DiscardPolicy.OLD),
        ("storage", api.StorageType.MEMORY),
        ("num_replicas", 1),
        ("duplicate_window", 1.0),
        ("max_consumers", 5),
    ],
)
def test_every_difference_is_named_with_both_values(field: str, value: Any) -> None:
    wanted = configs()["INVOKER_EVENTS"]
    (found,) = differences(wanted, dataclasses.replace(wanted, **{field: value}))
    assert found.startswith(f"{field} is ")
    assert "must be" in found


def test_the_order_of_subjects_and_the_spelling_of_values_are_no_difference() -> None:
    wanted = configs()["INVOKER_RESULTS"]
    existing = dataclasses.replace(
        wanted, subjects=list(reversed(wanted.subjects or [])), retention="limits", max_age=3600.0000001
    )
    assert differences(wanted, existing) == []
