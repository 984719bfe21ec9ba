"""Screens: what came from outside draws nothing, a pipe cuts nothing, a terminal is fitted."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console, RenderableType

from invoker.cli import dev_screen, screen
from invoker.request import RequestRecord
from invoker.result import Attempt, AttemptError, Reason, Result, RunStatusDocument, State
from invoker.views import Chain, ChainNode, RequestView, RunRow, RunView, request_view

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
EVIL = "\x1b[31mred\x07"


def drawn(what: RenderableType, width: int = 200) -> str:
    target = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    target.print(what)
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def a_result(**changed: object) -> Result:
    facts: dict[str, object] = {
        "request_id": "r1", "run_id": "run1", "function": "hello", "topic": "hello", "state": State.SUCCEEDED,
        "reason": Reason.COMPLETED, "finished_at": NOW, "started_at": NOW - timedelta(seconds=2),
        "queued_at": NOW - timedelta(seconds=3), "root_request_id": "r1",
    }  # fmt: skip
    return Result.model_validate(facts | changed)


def a_run(**changed: object) -> RunView:
    result = a_result(**changed)
    return RunView("r1", "run1", "hello", result.state, result.reason, result)


def a_status(state: State, **changed: object) -> RunStatusDocument:
    facts = {"run_id": "run1", "request_id": "r1", "function": "hello", "topic": "hello", "state": state, "at": NOW}
    return RunStatusDocument.model_validate(facts | changed)


def record(request_id: str, topic: str, functions: tuple[str, ...], parent: str | None = None) -> RequestRecord:
    return RequestRecord(
        request_id=request_id, topic=topic, received_at=NOW, accepted_at=NOW, sha256="", catalog="c",
        functions=functions, root_request_id="r1", parent_run_id=parent,
    )  # fmt: skip


def test_nothing_from_outside_reaches_the_terminal_raw() -> None:
    attempt = Attempt(number=1, error=AttemptError(type=EVIL, message=EVIL, traceback=EVIL))
    run = a_run(state=State.FAILED, reason=Reason.ERROR, message=EVIL, log_tail=EVIL, topic=EVIL, attempts=(attempt,))
    row = RunRow("run1", "r1", EVIL, EVIL, State.FAILED, Reason.ERROR, 1, NOW, NOW, NOW, "f1")
    view = request_view("r1", record("r1", EVIL, ("hello",)), {}, {"run1": a_status(State.RUNNING, text=EVIL)})
    for what in (
        screen.run_screen(run),
        screen.run_rows([row], NOW, wide=True),
        screen.request_screen(view),
        screen.chain_tree(Chain(ChainNode(view, None))),
        dev_screen.run_line(a_status(State.RUNNING, topic=EVIL), EVIL),
    ):
        assert "\x1b" not in drawn(what)
        assert "\x07" not in drawn(what)


def test_a_table_fits_a_terminal_and_is_whole_in_a_pipe() -> None:
    row = RunRow("a" * 26, "b" * 26, "f" * 60, "t" * 200, State.RUNNING, None, 2, NOW, NOW, None, "u1")
    assert max(map(len, drawn(screen.run_rows([row], NOW), 80).splitlines())) <= 80
    assert "t" * 200 in drawn(screen.run_rows([row], NOW), screen.PIPE_WIDTH)


def test_one_run_in_words() -> None:
    assert screen.run_words(a_run()).plain == "✓ hello  succeeded  2.0 s"
    failed = a_run(state=State.FAILED, reason=Reason.OUT_OF_MEMORY, message="used more than its 256 MiB")
    assert screen.run_words(failed).plain == "✗ hello  failed  2.0 s  out-of-memory: used more than its 256 MiB"
    never = a_run(state=State.CANCELLED, reason=Reason.CANCELLED, started_at=None)
    assert screen.run_words(never).plain == "⊘ hello  cancelled  0 ms  cancelled"
    queued = RunView("r1", "run1", "hello", State.QUEUED)
    assert screen.run_words(queued).plain == "◌ hello  queued"
    news = a_status(State.RUNNING, percent=40, text="unpacking", started_at=NOW)
    assert screen.run_words(queued, NOW + timedelta(seconds=1), news).plain == (
        "● hello  running  ━━━━━━━━──────────── 40 %  unpacking  1.0 s"
    )


@pytest.mark.parametrize("percent", [-5, 0, 50, 100, 250])
def test_a_bar_never_grows(percent: float) -> None:
    assert len(screen.bar(percent).plain) == screen.BAR_WIDTH


def test_every_state_has_a_sign() -> None:
    assert {state: bool(screen.look(state)[0]) for state in State} == dict.fromkeys(State, True)


def a_chain(children: int) -> Chain:
    root = request_view("r1", record("r1", "start", ("hello",)), {}, {})
    parent = root.runs[0].run_id
    nodes = tuple(
        ChainNode(request_view(f"c{n}", record(f"c{n}", f"next.{n}", ("hello",), parent), {}, {}), parent)
        for n in range(children)
    )
    return Chain(ChainNode(root, None, nodes))


def test_children_hang_under_the_run_that_caused_them() -> None:
    lines = drawn(screen.chain_tree(a_chain(2))).splitlines()
    assert lines[0] == "request r1  start"
    assert lines[1] == "└── ◌ hello  start  queued"
    assert lines[2] == "    ├── ◌ hello  next.0  queued"
    assert lines[3] == "    └── ◌ hello  next.1  queued"


def test_many_children_are_counted_not_drawn() -> None:
    lines = drawn(screen.chain_tree(a_chain(100), most=12)).splitlines()
    assert len(lines) == 2 + 12 + 1
    assert "… 88 more; 0 of 100 runs finished" in lines[-1]
    assert len(drawn(screen.chain_tree(a_chain(100))).splitlines()) == 2 + 100


def test_what_nothing_subscribes_to_is_said() -> None:
    view = RequestView("r1", "lost", record("r1", "lost", ()))
    assert "∅ nothing subscribes to it" in drawn(screen.chain_tree(Chain(ChainNode(view, None))))


def test_a_live_line_is_said_once() -> None:
    lines = dev_screen.RunLines()
    running, done = a_status(State.RUNNING, attempts=(Attempt(number=1),)), a_status(State.SUCCEEDED)
    again = a_status(State.RUNNING, attempts=(Attempt(number=1), Attempt(number=2)))
    assert [lines.is_new(one) for one in (running, running, again, done)] == [True, False, True, True]
    assert lines.is_new(a_status(State.QUEUED)) is False


def test_the_log_tells_what_a_person_wants_to_know() -> None:
    loaded = '{"event": "catalog loaded", "functions": 3, "timestamp": "2026-01-02T03:04:05.678901Z"}'
    refused = '{"event": "function cannot be loaded", "error_message": "f:1: no", "last_good_version_kept": true}'
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).astimezone()
    assert dev_screen.log_words(loaded) == f" {at:%H:%M:%S}  ↻ catalog read again: 3 functions"
    assert dev_screen.log_words(refused) == " ✗ f:1: no  (its last good version stays)"
    for other in ('{"event": "run started"}', "catalog loaded, but no JSON", ""):
        assert dev_screen.log_words(other) is None
