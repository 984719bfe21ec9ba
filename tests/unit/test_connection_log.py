"""A connection's log: one line per change of its state, and a reason that stays at most once a minute."""

from __future__ import annotations

from structlog.testing import capture_logs

from invoker.connection_log import SAID_AGAIN_SECONDS, ConnectionLog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def said(told: ConnectionLog, *events: str) -> list[tuple[str, str, str | None]]:
    with capture_logs() as lines:
        for event in events:
            await told(event)
    assert {line["event"] for line in lines} <= {"nats"}
    return [(line["log_level"], line["state"], line.get("error_message")) for line in lines]


async def test_an_outage_is_told_once_with_every_reason_of_it() -> None:
    clock = Clock()
    told = ConnectionLog("app", clock)
    assert await said(told, "disconnected", *["error: nobody listens", "error: no such host"] * 500) == [
        ("warning", "disconnected", None),
        ("warning", "disconnected", "nobody listens"),
        ("warning", "disconnected", "no such host"),
    ]
    clock.now = SAID_AGAIN_SECONDS - 1
    assert await said(told, "error: nobody listens", "disconnected") == []
    clock.now = SAID_AGAIN_SECONDS
    again = [("warning", "disconnected", "nobody listens")]
    assert await said(told, "error: nobody listens", "error: nobody listens") == again
    assert await said(told, "reconnected") == [("info", "connected", None)]
    assert len(await said(told, "disconnected", "error: nobody listens")) == 2, "another outage, told anew"


async def test_an_error_of_a_connection_that_stands_says_so() -> None:
    assert await said(ConnectionLog("app", Clock()), "error: permissions violation", "reconnected") == [
        ("warning", "connected", "permissions violation")
    ]


async def test_reasons_that_are_never_the_same_are_not_kept_for_ever() -> None:
    told = ConnectionLog("app", Clock())
    assert len(await said(told, *(f"error: {number}" for number in range(1000)))) == 1000
    assert len(told._said) <= 64


async def test_what_we_end_ourselves_is_not_told() -> None:
    told = ConnectionLog("app", Clock())
    told.end()
    assert await said(told, "disconnected", "closed", "error: broken pipe") == []
