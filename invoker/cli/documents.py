"""What `-o json` prints: the client's views as plain documents, with the keys of the stored ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from invoker.request import Document
from invoker.views import Chain, ChainNode, Receipt, RequestView, RunRow, RunView

JsonObject = dict[str, Any]


def plain(document: Document) -> JsonObject:
    """A stored document with its own keys."""
    return document.model_dump(mode="json", by_alias=True)


def run_document(run: RunView) -> JsonObject:
    """A run: its stored result, or the latest news of it in the same keys."""
    if run.result is not None:
        return plain(run.result)
    status = run.status
    return {
        "request_id": run.request_id,
        "run_id": run.run_id,
        "function": run.function,
        "topic": status.topic if status else None,
        "state": str(run.state),
        "reason": None,
        "message": "",
        "attempts": [plain(attempt) for attempt in status.attempts] if status else [],
        "queued_at": _instant(status.queued_at if status else None),
        "dispatched_at": _instant(status.dispatched_at if status else None),
        "started_at": _instant(status.started_at if status else None),
        "finished_at": None,
        "percent": status.percent if status else None,
        "text": status.text if status else None,
    }


def request_document(view: RequestView) -> JsonObject:
    """A request with all its runs."""
    record = view.record
    return {
        "request_id": view.request_id,
        "topic": view.topic,
        "state": str(view.state),
        "received_at": _instant(record.received_at if record else None),
        "root_request_id": record.root_request_id if record else None,
        "parent_run_id": record.parent_run_id if record else None,
        "replay_of": record.replay_of if record else None,
        "hops": record.hops if record else 0,
        "runs": [run_document(run) for run in view.runs],
    }


def chain_document(chain: Chain) -> JsonObject:
    """A chain as its tree of requests."""
    return {"settled": chain.settled, **_node(chain.root)}


def _node(node: ChainNode) -> JsonObject:
    return {**request_document(node.view), "children": [_node(child) for child in node.children]}


def row_document(row: RunRow) -> JsonObject:
    """A line of a list of runs."""
    document = {**asdict(row), "state": str(row.state), "reason": str(row.reason) if row.reason else None}
    document |= {key: _instant(getattr(row, key)) for key in ("queued_at", "started_at", "finished_at")}
    for unasked in ("percent", "text"):  # lists do not ask for progress: a null would say that there is none
        del document[unasked]
    return document


def receipt_document(receipt: Receipt) -> JsonObject:
    """An acknowledged publish."""
    return asdict(receipt)


def _instant(at: Any) -> str | None:
    return at.isoformat() if at is not None else None
