"""What is said of a file that is no YAML, of a server that is not there, of an attempt that was cut short."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta

import pytest

from invoker.cli.screen import run_screen
from invoker.cli.tree import command_path
from invoker.client import Client
from invoker.connection import ConnectionOptions, _plain, nats_errors
from invoker.errors import ServerUnreachableError
from invoker.result import Attempt, Reason, Result, State
from invoker.views import RunView
from tests.unit.test_cli_screen import drawn
from trigger.yaml_document import YamlError, read_documents

NOW = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metadata:\n\tname: hello\n", "indent with spaces, not with tabs"),
        ("spec: @hello\n", "a value cannot begin with '@'; put it in quotes"),
        ("spec: `ls`\n", "a value cannot begin with '`'; put it in quotes"),
        ("spec: [a\n", "not YAML: did not find expected ',' or ']'"),
    ],
)
def test_what_is_no_yaml_is_told_with_what_to_do(text: str, said: str) -> None:
    with pytest.raises(YamlError) as caught:
        read_documents(text)
    assert said in str(caught.value)


async def test_a_server_that_is_not_there_refuses_in_plain_words() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port, and it refuses
        taken.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServerUnreachableError) as caught:
            await Client.connect(ConnectionOptions(url=url))
    assert caught.value.message == f"NATS at {url} cannot be reached: connection refused"


def test_a_server_that_is_silent_may_have_a_full_disk() -> None:
    with pytest.raises(ServerUnreachableError, match="a: NATS did not answer in time") as caught, nats_errors("a"):
        raise TimeoutError
    assert caught.value.hint == "is the server up, has its disk room, and may this user do that?"


def test_a_name_with_several_addresses_refuses_in_the_same_words() -> None:
    """As asyncio says it of localhost where that has an IPv6 address, too."""
    each = ("[Errno 111] Connect call failed ('::1', 1, 0, 0)", "[Errno 111] Connect call failed ('127.0.0.1', 1)")
    assert _plain(f"Multiple exceptions: {', '.join(each)}") == "connection refused"
    assert _plain("[Errno 113] Connect call failed ('10.0.0.1', 1)").startswith("[Errno 113]")


def test_an_attempt_that_was_cut_short_is_not_running_any_more() -> None:
    attempt = Attempt(number=1, started_at=NOW - timedelta(seconds=3))
    result = Result(
        request_id="r1", run_id="run1", function="slow", topic="slow", state=State.CANCELLED, reason=Reason.CANCELLED,
        finished_at=NOW, started_at=NOW - timedelta(seconds=3), queued_at=NOW - timedelta(seconds=4),
        root_request_id="r1", attempts=(attempt,),
    )  # fmt: skip
    told = drawn(run_screen(RunView("r1", "run1", "slow", result.state, result.reason, result)))
    assert "running" not in told
    assert next(line.split() for line in told.splitlines() if "attempt" in line) == [
        "attempt", "1", "cancelled", "3.0", "s",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["runs", "list", "--since"], "invoker runs list"),
        (["publish", "runs", "--wait"], "invoker publish"),
        (["-q", "--server", "runs", "result", "--wait"], "invoker result"),
        (["nothing"], "invoker"),
        ([], "invoker"),
    ],
)
def test_the_command_that_a_line_names(arguments: list[str], path: str) -> None:
    assert command_path(arguments) == path
