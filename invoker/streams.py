"""The streams of one instance: what they must be, and how they are made or compared.

Pure but for `ensure_streams`. Each rule here prevents a loss that was seen or searched for; the tests of custody take
them out one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nats.js.errors
from nats.js import api

from invoker import wire
from invoker.connection import nats_errors
from invoker.errors import StreamMismatchError

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext

DUPLICATE_WINDOW_SECONDS = 120.0
DEAD_SECONDS = 30 * 86_400.0
_NAME_IN_USE = 10058
"""JetStream's code for a stream of that name with other settings; other refusals have their own words."""
_NO_ROOM = 10047
"""JetStream's code for a bound that the store cannot promise. It asks for that before it looks whether the stream is
there, so a stream that takes half of the store is refused although it exists as it must be."""
MAX_CONSUMERS = 100_000
"""Said explicitly: since 2.15 the server refuses a stream's 1,001st consumer otherwise."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What an operator may choose about the streams. Seconds, bytes, replicas (1, 3 or 5); -1 bytes is unbounded."""

    retention_seconds: float = 172_800.0
    events_bytes: int = -1
    results_bytes: int = -1
    replicas: int = 1


def stream_configs(names: wire.Names, limits: StreamLimits) -> list[api.StreamConfig]:
    """The streams exactly as they must be, in the order they are made."""
    return [
        _events(names, limits),
        _runs(names, limits),
        _results(names, limits),
        _status(names, limits),
        _dead(names, limits),
        _payloads(names, limits),
    ]


async def ensure_streams(jetstream: JetStreamContext, names: wire.Names, limits: StreamLimits) -> None:
    """When this returns every stream exists as it must be. Safe to repeat, from many controllers at once.

    Raises `StreamMismatchError` naming stream and field when one exists with other settings: never changed silently,
    since a work queue turned into another kind of stream loses what is unfinished.
    """
    for config in stream_configs(names, limits):
        with nats_errors(f"stream {config.name}"):
            try:
                await jetstream.add_stream(config)
            except nats.js.errors.APIError as error:
                if error.err_code not in (_NAME_IN_USE, _NO_ROOM):
                    raise
                _compare(config, await _existing(jetstream, config, error))


async def _existing(
    jetstream: JetStreamContext, config: api.StreamConfig, refused: nats.js.errors.APIError
) -> api.StreamConfig:
    try:
        return (await jetstream.stream_info(config.name or "")).config
    except nats.js.errors.NotFoundError:
        raise refused from None


def differences(wanted: api.StreamConfig, existing: api.StreamConfig) -> list[str]:
    """The settings that differ, each as `field: existing, wanted …`; fields we leave to the server are not compared."""
    compared = (
        "subjects", "retention", "max_age", "max_bytes", "max_msgs_per_subject", "discard", "discard_new_per_subject",
        "storage", "num_replicas", "duplicate_window", "max_consumers", "allow_direct", "deny_delete", "deny_purge",
    )  # fmt: skip
    found = []
    for field in compared:
        want, have = getattr(wanted, field), getattr(existing, field)
        if want is not None and _plain(want) != _plain(have):
            found.append(f"{field} is {_plain(have)}, must be {_plain(want)}")
    return found


def _compare(wanted: api.StreamConfig, existing: api.StreamConfig) -> None:
    found = differences(wanted, existing)
    if found:
        raise StreamMismatchError(
            f"stream {wanted.name} exists with other settings: {'; '.join(found)}",
            hint="change the settings of Invoker to match, or update the stream by hand (`nats stream edit`)",
            stream=wanted.name,
        )


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return sorted(value)
    if isinstance(value, float):
        return round(value, 6)
    return getattr(value, "value", value)


def _events(names: wire.Names, limits: StreamLimits) -> api.StreamConfig:
    # A work queue without age: acked means gone, and an outage of any length loses nothing. Full: the publisher hears.
    return api.StreamConfig(
        name=names.events_stream,
        subjects=[f"{names.topic_prefix}.>"],
        retention=api.RetentionPolicy.WORK_QUEUE,
        discard=api.DiscardPolicy.NEW,
        max_age=0,
        max_bytes=limits.events_bytes,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        storage=api.StorageType.FILE,
        num_replicas=limits.replicas,
        max_consumers=MAX_CONSUMERS,
        allow_direct=False,
    )


def _runs(names: wire.Names, limits: StreamLimits) -> api.StreamConfig:
    # A work queue without age: it holds exactly the unfinished runs, so a consumer made anew repeats nothing finished.
    return api.StreamConfig(
        name=names.runs_stream,
        subjects=[f"{names.instance}.run.*.*"],
        retention=api.RetentionPolicy.WORK_QUEUE,
        discard=api.DiscardPolicy.NEW,
        discard_new_per_subject=True,
        max_msgs_per_subject=1,
        max_age=0,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        storage=api.StorageType.FILE,
        num_replicas=limits.replicas,
        max_consumers=MAX_CONSUMERS,
        allow_direct=False,
    )


def _results(names: wire.Names, limits: StreamLimits) -> api.StreamConfig:
    # Records and results share one stream and one age: a record is always gone before its results.
    return api.StreamConfig(
        name=names.results_stream,
        subjects=[f"{names.instance}.accepted.*", f"{names.instance}.result.*.*"],
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.NEW,
        discard_new_per_subject=True,
        max_msgs_per_subject=1,
        max_age=limits.retention_seconds,
        max_bytes=limits.results_bytes,
        duplicate_window=min(DUPLICATE_WINDOW_SECONDS, limits.retention_seconds),
        storage=api.StorageType.FILE,
        num_replicas=limits.replicas,
        max_consumers=MAX_CONSUMERS,
        allow_direct=True,
        deny_delete=True,
        deny_purge=True,
    )


def _status(names: wire.Names, limits: StreamLimits) -> api.StreamConfig:
    return api.StreamConfig(
        name=names.status_stream,
        subjects=[f"{names.instance}.status.*"],
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.OLD,
        max_msgs_per_subject=1,
        max_age=limits.retention_seconds,
        duplicate_window=min(DUPLICATE_WINDOW_SECONDS, limits.retention_seconds),
        storage=api.StorageType.MEMORY,
        num_replicas=1,
        allow_direct=True,
    )


def _dead(names: wire.Names, limits: StreamLimits) -> api.StreamConfig:
    return api.StreamConfig(
        name=names.dead_stream,
        subjects=[f"{names.instance}.dead.*"],
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.OLD,
        max_age=DEAD_SECONDS,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        storage=api.StorageType.FILE,
        num_replicas=limits.replicas,
        allow_direct=True,
    )


def _payloads(names: wire.Names, limits: StreamLimits) -> api.StreamConfig:
    # No age: an event may wait in EVENTS for longer than any age. A controller sweeps what was last used too long ago.
    bucket = names.payloads_bucket
    return api.StreamConfig(
        name=f"OBJ_{bucket}",
        subjects=[f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.NEW,
        max_age=0,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        storage=api.StorageType.FILE,
        num_replicas=limits.replicas,
        allow_rollup_hdrs=True,
        allow_direct=True,
    )
