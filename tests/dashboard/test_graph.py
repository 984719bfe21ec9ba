"""The drawing of a chain, and its table: no overlap, every edge drawn, nothing left out unsaid, always the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import combinations, count

from hypothesis import given, settings
from hypothesis import strategies as st

from invoker import wire
from invoker.gateway.dashboard.chain_graph import BEND, HEIGHT, MARGIN, WIDTH, Graph, GraphNode, chain_graph
from invoker.gateway.dashboard.chain_stages import stages
from invoker.request import Content, RequestRecord
from invoker.result import Reason, Result, State
from invoker.views import ChainNode, RequestView, RunView

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FUNCTIONS = tuple(f"f{number}" for number in range(4))


def result_of(request_id: str, function: str, seconds: float) -> Result:
    return Result.model_validate(
        {
            "request_id": request_id, "run_id": wire.run_id_of(request_id, function), "function": function,
            "topic": "t", "state": State.SUCCEEDED, "reason": Reason.COMPLETED, "root_request_id": "r0",
            "queued_at": NOW, "started_at": NOW + timedelta(seconds=1),
            "finished_at": NOW + timedelta(seconds=1 + seconds), "output": Content.inline(b"12345"),
        }
    )  # fmt: skip


def run_of(request_id: str, function: str, seconds: float | None) -> RunView:
    run_id = wire.run_id_of(request_id, function)
    if seconds is None:
        return RunView(request_id, run_id, function, State.RUNNING)
    result = result_of(request_id, function, seconds)
    return RunView(request_id, run_id, function, result.state, result.reason, result)


def request_of(request_id: str, functions: tuple[str, ...], seconds: float | None = 2.0) -> RequestView:
    record = RequestRecord(
        request_id=request_id, topic=f"topic.of.{request_id}", received_at=NOW, accepted_at=NOW, sha256="0" * 64,
        catalog="c", functions=functions, root_request_id="r0", body=Content.inline(b"123"),
    )  # fmt: skip
    return RequestView(request_id, record.topic, record, tuple(run_of(request_id, one, seconds) for one in functions))


@st.composite
def chains(draw: st.DrawFn) -> ChainNode:
    """Trees of requests with none to four runs each; a child hangs below one of the runs, or below none of them."""
    numbers = count()

    def node(parent: str | None, depth: int) -> ChainNode:
        request_id = f"r{next(numbers)}"
        functions = FUNCTIONS[: draw(st.integers(0, 4))]
        view = request_of(request_id, functions, draw(st.sampled_from([None, 0.5])))
        owners = [run.run_id for run in view.runs] + ["one-that-is-hidden"]
        size = draw(st.integers(0, 3)) if depth < 4 else 0
        return ChainNode(view, parent, tuple(node(draw(st.sampled_from(owners)), depth + 1) for _ in range(size)))

    return node(None, 0)


def box(node: GraphNode) -> tuple[int, int, int, int]:
    return node.x, node.y, node.x + WIDTH, node.y + HEIGHT


def expected_nodes(root: ChainNode) -> int:
    return sum(max(1, len(node.view.runs)) for node in root)


@settings(max_examples=60, deadline=None)
@given(chains())
def test_no_node_overlaps_and_all_are_inside(root: ChainNode) -> None:
    graph = chain_graph(root, "r0")
    assert len(graph.nodes) == expected_nodes(root) + 1
    for (ax, ay, bx, by), (cx, cy, dx, dy) in combinations(map(box, graph.nodes), 2):
        assert bx < cx or dx < ax or by < cy or dy < ay
    for x, y, right, bottom in map(box, graph.nodes):
        assert x >= MARGIN
        assert y >= MARGIN
        assert right <= graph.width - MARGIN
        assert bottom <= graph.height - MARGIN


@settings(max_examples=60, deadline=None)
@given(chains())
def test_every_node_but_the_first_has_one_edge_that_ends_at_it(root: ChainNode) -> None:
    graph = chain_graph(root, "r0")
    starts = {(node.x + WIDTH, node.y + HEIGHT // 2) for node in graph.nodes}
    ends = [edge.end for edge in graph.edges]
    assert sorted(ends) == sorted((node.x, node.y + HEIGHT // 2) for node in graph.nodes[1:])
    for edge in graph.edges:
        assert edge.start in starts
        assert edge.end[0] >= edge.start[0] + BEND, "from left to right, with room for the bend"
        assert edge.path.startswith(f"M{edge.start[0]} {edge.start[1]}C")
        assert edge.path.endswith(f"{edge.end[1]}H{edge.end[0]}")


@settings(max_examples=60, deadline=None)
@given(chains())
def test_names_of_topics_cover_neither_nodes_nor_each_other(root: ChainNode) -> None:
    graph = chain_graph(root, "r0")
    labels = [(*edge.label_at, edge.end[0]) for edge in graph.edges if edge.topic]
    for x, y, right in labels:
        assert right - x >= 7 * 18, "room for as many letters as are written"
        for left, top, end, bottom in map(box, graph.nodes):
            assert end <= x or right <= left or y <= top or bottom <= y - 11
    assert len({(x, y) for x, y, _ in labels}) == len(labels)


@settings(max_examples=30, deadline=None)
@given(chains(), st.integers(0, 12))
def test_what_has_no_room_is_counted(root: ChainNode, most: int) -> None:
    graph = chain_graph(root, "r0", most)
    assert len(graph.nodes) - 1 == min(most, expected_nodes(root))
    assert graph.left_out == expected_nodes(root) - (len(graph.nodes) - 1)
    assert len(graph.edges) == len(graph.nodes) - 1


@settings(max_examples=30, deadline=None)
@given(chains())
def test_the_same_chain_is_the_same_drawing(root: ChainNode) -> None:
    assert chain_graph(root, "r0") == chain_graph(root, "r0")


def stage_chain() -> ChainNode:
    """Two runs, of which the first caused a request that is still running."""
    first = request_of("r0", ("collect", "count"))
    following = request_of("r1", ("convert",), None)
    return ChainNode(first, None, (ChainNode(following, first.runs[0].run_id),))


def nodes_named(graph: Graph) -> dict[str, GraphNode]:
    return {node.full_name: node for node in graph.nodes}


def test_a_chain_stands_from_left_to_right_with_its_words() -> None:
    graph = chain_graph(stage_chain(), "r1")
    nodes = nodes_named(graph)
    assert [nodes[name].x for name in ("topic.of.r0", "collect", "convert")] == sorted(
        nodes[name].x for name in ("topic.of.r0", "collect", "convert")
    )
    assert nodes["collect"].y == nodes["convert"].y
    assert nodes["collect"].y < nodes["count"].y
    assert (nodes["collect"].words, nodes["collect"].state) == ("succeeded · 2.0 s", "succeeded")
    assert nodes["convert"].words == "running"
    assert nodes["convert"].label == "convert: running, on topic.of.r1"
    assert [node.full_name for node in graph.nodes if node.is_asked] == ["convert"]
    assert nodes["collect"].address == f"/ui/runs/{wire.run_id_of('r0', 'collect')}"
    assert [edge.full_topic for edge in graph.edges if edge.full_topic] == ["topic.of.r1"]


def test_what_hangs_below_something_hidden_is_drawn_as_indirect() -> None:
    first = request_of("r0", ("collect",))
    between, last = request_of("r1", ("convert",)), request_of("r2", ("store",))
    hidden = ChainNode(first, None, (ChainNode(between, "hidden-run", (ChainNode(last, between.runs[0].run_id),)),))
    direct = {nodes.end: nodes.is_direct for nodes in chain_graph(hidden, "r0").edges}
    nodes = nodes_named(chain_graph(hidden, "r0"))
    ends = {name: (node.x, node.y + HEIGHT // 2) for name, node in nodes.items()}
    assert (direct[ends["collect"]], direct[ends["convert"]], direct[ends["store"]]) == (True, False, True)


def test_long_names_are_cut_and_kept_whole_beside() -> None:
    name = "a" + 60 * "b"
    node = nodes_named(chain_graph(ChainNode(request_of("r0", (name,)), None), "r0"))[name]
    assert len(node.name) == 22
    assert node.name.endswith("…")


def test_a_request_without_runs_says_why_it_has_none() -> None:
    unmatched = chain_graph(ChainNode(request_of("r0", ()), None), "r0").nodes[1]
    assert (unmatched.kind, unmatched.words, unmatched.state) == ("nothing", "nothing matched", "no-match")
    waiting = chain_graph(ChainNode(RequestView("r0", "a.b", None), None), "r0").nodes[1]
    assert (waiting.words, waiting.state) == ("not accepted yet", "queued")


def test_the_table_has_times_bytes_and_causes() -> None:
    table = stages(stage_chain())
    assert [(row.stage, row.function, row.cause) for row in table.rows] == [
        (1, "collect", None), (1, "count", None), (2, "convert", "collect"),
    ]  # fmt: skip
    first, last = table.rows[0], table.rows[2]
    assert (first.waited_seconds, first.ran_seconds, first.input_bytes, first.output_bytes) == (1.0, 2.0, 3, 5)
    assert (last.ran_seconds, last.output_bytes) == (None, None)
    assert (table.runs, table.unfinished, table.failed, table.seconds) == (3, 1, 0, None)
    assert stages(ChainNode(request_of("r0", ("a",)), None)).seconds == 3.0


def test_a_long_table_is_cut_and_says_so() -> None:
    table = stages(stage_chain(), most=2)
    assert (len(table.rows), table.left_out) == (2, 1)
