"""From the gateway's documents back to the values that a client hands out. Pure.

What a gateway does not tell is left out: the bytes of an event are read where they are, not from its record.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from invoker.errors import ServerUnreachableError
from invoker.feed import FeedItem
from invoker.request import Content, RequestRecord
from invoker.result import Reason, Result, RunStatusDocument, State
from invoker.views import Chain, ChainNode, LogLine, RequestView, RunRow, RunView, run_view

JsonObject = Mapping[str, Any]
Model = TypeVar("Model", bound=BaseModel)


def model_of(kind: type[Model], document: Any) -> Model:
    """The document as that model. Raises `ServerUnreachableError` for what is none: no gateway wrote it."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise unreadable(kind.__name__) from error


def unreadable(what: str) -> ServerUnreachableError:
    return ServerUnreachableError(f"the gateway's answer holds no {what} that this version reads")


def run_of(document: JsonObject) -> RunView:
    """A run from its detail: with its result once it has finished, else with the latest news of it."""
    try:
        request_id, run_id, function = document["request_id"], document["run_id"], document["function"]
        finished = document.get("finished_at") is not None and document.get("reason") is not None
        result = Result.model_validate(document) if finished else None
        status = None if finished else _status_of(document)
        return run_view(request_id, function, run_id, result, status)
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable("run") from error


def _status_of(document: JsonObject) -> RunStatusDocument | None:
    """The news of an unfinished run; one of which nothing is known but that it is queued has none."""
    at = document.get("started_at") or document.get("queued_at")
    return RunStatusDocument.model_validate({**document, "at": at}) if at is not None else None


def request_of(document: JsonObject) -> RequestView:
    """A request from its detail; until it is accepted it has no record."""
    try:
        runs = tuple(run_of(one) for one in document["runs"])
        return RequestView(document["request_id"], document["topic"], _record_of(document, runs), runs)
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable("request") from error


def _record_of(document: JsonObject, runs: tuple[RunView, ...]) -> RequestRecord | None:
    if document.get("accepted_at") is None:
        return None
    body = document["input"]
    given = {key: value for key, value in document.items() if key in RequestRecord.model_fields and value is not None}
    return RequestRecord.model_validate(
        given
        | {
            "functions": [run.function for run in runs],
            "sha256": body["sha256"],
            "body": Content(size_bytes=body["bytes"], content_type=body.get("content_type")),
        }
    )


def chain_of_document(document: JsonObject) -> Chain:
    """A chain from its tree."""
    return Chain(_node_of(document), bool(document.get("settled")))


def _node_of(document: JsonObject) -> ChainNode:
    children = tuple(_node_of(child) for child in document.get("children") or ())
    return ChainNode(request_of(document), document.get("parent_run_id"), children)


def row_of(document: JsonObject) -> RunRow:
    """A line of a list of runs."""
    try:
        reason = document.get("reason")
        return RunRow(
            run_id=document["run_id"],
            request_id=document["request_id"],
            function=document["function"],
            topic=document["topic"],
            state=State(document["state"]),
            reason=Reason(reason) if reason is not None else None,
            attempts=int(document["attempts"]),
            queued_at=instant(document.get("queued_at")),
            started_at=instant(document.get("started_at")),
            finished_at=instant(document.get("finished_at")),
            cursor=document.get("cursor") or "",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable("run") from error


def log_line_of(document: JsonObject) -> LogLine:
    """A line of a log."""
    try:
        at = instant(document.get("at"))
        return LogLine(document["text"], document.get("attempt"), document.get("stream"), at)
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable("line of a log") from error


def news_of(name: str, document: JsonObject) -> RunStatusDocument | None:
    """The news of a run in an event of a stream, None for an event about something else."""
    if name == "status":
        return model_of(RunStatusDocument, document)
    if name != "result":
        return None
    row = row_of(document)
    return model_of(RunStatusDocument, {**document, "attempts": (), "at": row.finished_at or row.queued_at})


def item_of(name: str, document: JsonObject, sequence: str | None) -> FeedItem | RunStatusDocument | None:
    """What an event of a stream tells, None for one about the stream itself."""
    if name == "status":
        return model_of(RunStatusDocument, document)
    if name not in ("accepted", "result") or not (sequence or "").isdigit():
        return None
    row = row_of(document) if name == "result" else None
    functions = document.get("functions")
    return FeedItem(
        sequence=int(sequence or 0),
        request_id=document["request_id"],
        topic=document["topic"],
        root_request_id=document.get("root_request_id"),
        runs=document.get("runs"),
        row=row,
        functions=tuple(functions) if functions is not None else None,
    )


def instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None
