"""A chain as a drawing: runs from left to right, each behind the run whose event it answers. Pure.

Places only; colours and letters are the page's. It is a tree, so it is laid out as one: what ends a branch gets a row
of its own, and everything else stands in the middle of what it caused. So nothing overlaps, and the same chain is
always the same drawing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from invoker.gateway.dashboard.paths import url_for
from invoker.quantities import between, duration
from invoker.result import State
from invoker.views import ChainNode, RequestState, RequestView, RunView

WIDTH, HEIGHT = 176, 46
"""Of a node."""
BEND, LABEL = 40, 126
"""Between two columns: where edges part, and what is left for the name of the topic."""
COLUMN, ROW = WIDTH + BEND + LABEL, 66
MARGIN = 12
MAX_NODES = 200
_NAME, _TOPIC = 22, 19
"""Characters that fit."""

Kind = Literal["event", "run", "nothing"]


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node at its place: the event that began it all, a run, or a request without any. `state` is a class of the
    style sheet, `since` when a run began that goes on, `label` what the node says to who cannot see it."""

    kind: Kind
    x: int
    y: int
    name: str
    full_name: str
    state: str
    words: str
    label: str
    address: str
    since: datetime | None = None
    is_asked: bool = False
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """The event between two nodes. `is_direct`: the one caused it, and not something between that is not shown."""

    start: tuple[int, int]
    end: tuple[int, int]
    topic: str
    full_topic: str
    is_direct: bool = True

    @property
    def path(self) -> str:
        """A line of SVG: bent where edges part, then straight, with room for the topic above."""
        (x0, y0), (x1, y1) = self.start, self.end
        middle, straight = x0 + BEND // 2, x0 + BEND
        return f"M{x0} {y0}C{middle} {y0} {middle} {y1} {straight} {y1}H{x1}"

    @property
    def label_at(self) -> tuple[int, int]:
        return self.start[0] + BEND, self.end[1] - 6


@dataclass(frozen=True, slots=True)
class Graph:
    """A whole drawing and its size. `left_out`: how many runs and requests were one too many."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    width: int
    height: int
    left_out: int = 0


@dataclass(slots=True)
class _Box:
    """A node before it has its place."""

    kind: Kind
    view: RequestView
    run: RunView | None
    depth: int
    is_direct: bool = True
    below: list[_Box] = field(default_factory=list)
    row: float = 0.0


def chain_graph(root: ChainNode, asked: str, most: int = MAX_NODES) -> Graph:
    """The drawing of the chain from that request on, with at most so many nodes besides the first one. `asked` is the
    request that the page is about."""
    first = _Box("event", root.view, None, 0)
    left_out = _grow(first, root, most)
    rows = _placed(first)
    boxes = list(_walk(first))
    deepest = max(box.depth for box in boxes)
    return Graph(
        nodes=tuple(_node(box, asked) for box in boxes),
        edges=tuple(_edge(box, child) for box in boxes for child in box.below),
        width=2 * MARGIN + deepest * COLUMN - LABEL + WIDTH,
        height=2 * MARGIN + (rows - 1) * ROW + HEIGHT,
        left_out=left_out,
    )


def _grow(first: _Box, root: ChainNode, most: int) -> int:
    """Hang every request of the chain under the run that caused it, the nearest ones first; the number of runs and
    requests for which there was no room."""
    made, left_out = 0, 0
    runs: dict[str, _Box] = {}
    waiting: deque[tuple[ChainNode, _Box]] = deque([(root, first)])
    while waiting:
        node, at = waiting.popleft()
        own = [_Box("run", node.view, run, at.depth + 1) for run in node.view.runs]
        own = own or [_Box("nothing", node.view, None, at.depth + 1)]
        room = own[: max(0, most - made)]
        made, left_out = made + len(room), left_out + len(own) - len(room)
        for box in room:
            box.is_direct = at.kind == "event" or (at.run is not None and at.run.run_id == node.parent_run_id)
            if box.run is not None:
                runs[box.run.run_id] = box
        at.below += room
        for child in node.children:
            waiting.append((child, runs.get(child.parent_run_id or "") or (room[0] if room else at)))
    return left_out


def _placed(first: _Box) -> int:
    """Give every box its row; the number of rows."""
    rows = 0
    for box in _deepest_first(first):
        if box.below:
            box.row = (box.below[0].row + box.below[-1].row) / 2
        else:
            box.row, rows = rows, rows + 1
    return rows


def _walk(first: _Box) -> Iterator[_Box]:
    yield first
    for child in first.below:
        yield from _walk(child)


def _deepest_first(first: _Box) -> Iterator[_Box]:
    for child in first.below:
        yield from _deepest_first(child)
    yield first


def _place(box: _Box) -> tuple[int, int]:
    return MARGIN + max(0, box.depth * COLUMN - LABEL), MARGIN + round(box.row * ROW)


def _edge(box: _Box, child: _Box) -> GraphEdge:
    (x0, y0), (x1, y1) = _place(box), _place(child)
    # The first node itself is the topic, and so stands closer.
    topic = "" if box.kind == "event" else child.view.topic
    start, end = (x0 + WIDTH, y0 + HEIGHT // 2), (x1, y1 + HEIGHT // 2)
    return GraphEdge(start, end, _short(topic, _TOPIC), topic, child.is_direct)


def _node(box: _Box, asked: str) -> GraphNode:
    x, y = _place(box)
    view, run = box.view, box.run
    is_asked = view.request_id == asked
    if run is not None:
        words, since = _run_words(run)
        label = f"{run.function}: {run.state}{f' ({run.reason})' if run.reason else ''}, on {view.topic}"
        name, address = run.function, url_for("run", run.run_id)
        return GraphNode(
            "run", x, y, _short(name), name, str(run.state), words, label, address, since, is_asked
        )  # fmt: skip
    address = url_for("request", view.request_id)
    if box.kind == "event":
        label = f"event on {view.topic}"
        return GraphNode("event", x, y, _short(view.topic), view.topic, "event", "event", label, address, None, False)
    state = view.state
    words = "nothing matched" if state is RequestState.NO_MATCH else "not accepted yet"
    label = f"{view.topic}: {words}"
    return GraphNode(
        "nothing", x, y, _short(view.topic), view.topic, str(state), words, label, address, None, is_asked
    )  # fmt: skip


def _run_words(run: RunView) -> tuple[str, datetime | None]:
    """State and how long it took, or since when it runs."""
    if run.result is not None:
        took = duration(between(run.result.started_at, run.result.finished_at))
        return f"{run.state}{f' · {took}' if took else ''}", None
    started = run.status.started_at if run.status is not None and run.state is State.RUNNING else None
    return str(run.state), started


def _short(text: str, room: int = _NAME) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"
