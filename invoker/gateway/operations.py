"""The publishing calls as OpenAPI tells them: those routes read their calls themselves, so it is by hand. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from invoker import wire
from invoker.gateway import cloudevents
from invoker.gateway.documents import Accepted
from invoker.gateway.publishing_documents import BatchAnswer, Finished

Operation = dict[str, Any]
SCHEMAS = "#/components/schemas/"
ANY_BYTES: dict[str, Any] = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
PROBLEM: dict[str, Any] = {
    "description": "A problem as of RFC 9457, or of a failed run that was waited for",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "instance": {"type": "string"},
        "hint": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "wait": {
        "name": "wait", "in": "query", "schema": {"type": "number", "minimum": 0},
        "description": "Seconds to wait for what the runs give; when they are over the answer is 202 as without it",
    },
    "prefer": {
        "name": "Prefer", "in": "header", "schema": {"type": "string"},
        "description": "`respond-async`: answer as soon as the event is stored; `wait=N`: as the parameter",
    },
    "idempotency-key": {
        "name": "Idempotency-Key", "in": "header",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
        "description": "Your id for this event: with the same body again it makes nothing new, with another one 422",
    },
}  # fmt: skip
RESPONSES: dict[str, dict[str, Any]] = {
    "accepted": {
        "description": "Stored, and never lost from here on; with the list of its runs as soon as it is accepted",
        "headers": {"Location": {"schema": {"type": "string"}, "description": "The request"}},
        "content": {"application/json": {"schema": {"$ref": f"{SCHEMAS}Accepted"}}},
    },
    "finished": {
        "description": "Waited for: the output of the one run as it is, or with several runs a document of each",
        "content": {"application/json": {"schema": {}}, **ANY_BYTES},
    },
    "partly": {
        "description": "Waited for: several runs, and not all succeeded",
        "content": {"application/json": {"schema": {"$ref": f"{SCHEMAS}Finished"}}},
    },
    "problem": {
        "description": "Refused, or waited for and failed",
        "content": {wire.CONTENT_TYPE_PROBLEM: {"schema": {"$ref": f"{SCHEMAS}Problem"}}},
    },
}
_PROBLEMS = {"4XX": {"$ref": "#/components/responses/problem"}, "5XX": {"$ref": "#/components/responses/problem"}}
_ASKED = [{"$ref": f"#/components/parameters/{name}"} for name in PARAMETERS]
_EVENT_CONTENT = {
    cloudevents.STRUCTURED: {"schema": {"$ref": f"{SCHEMAS}CloudEvent"}},
    cloudevents.BATCH: {"schema": {"type": "array", "items": {"$ref": f"{SCHEMAS}CloudEvent"}}},
}
CLOUD_EVENT: dict[str, Any] = {
    "description": "A CloudEvent 1.0 in its JSON format",
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "format": "uri-reference", "minLength": 1},
        "type": {"type": "string", "minLength": 1},
        "subject": {"type": ["string", "null"], "minLength": 1},
        "time": {"type": ["string", "null"], "format": "date-time"},
        "datacontenttype": {"type": ["string", "null"]},
        "dataschema": {"type": ["string", "null"], "format": "uri"},
        "data": {},
        "data_base64": {"type": ["string", "null"], "contentEncoding": "base64"},
    },
}


def path_parameter(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": description}


def publishing_paths() -> dict[str, dict[str, Operation]]:
    """The three ways to publish."""
    topic = _operation(
        "publish", "publish", "Publish an event on a topic",
        "The body is the event, whatever it is; a CloudEvent (in each of its forms) is recognised. Other names in "
        "the query, and headers `Invoker-Param-<name>`, are parameters of the functions; headers "
        "`Invoker-Header-<name>` become headers of the event.",
        {"required": False, "content": {**ANY_BYTES, **_EVENT_CONTENT}},
        [path_parameter("topic", "1 to 32 tokens between dots, no wildcards"), *_ASKED],
    )  # fmt: skip
    events = _operation(
        "publish_event", "publish", "Publish CloudEvents",
        "Each names its topic as its `type`. Its `source` and `id` together name it: sent again it makes nothing new. "
        "A batch is answered event by event, and neither waited for nor given a key.",
        {"required": True, "content": {**_EVENT_CONTENT, **ANY_BYTES}},
        _ASKED,
    )  # fmt: skip
    for one in (topic, events):
        batch = {"schema": {"$ref": f"{SCHEMAS}BatchAnswer"}}
        either = {"oneOf": [{"$ref": f"{SCHEMAS}Accepted"}, {"$ref": f"{SCHEMAS}BatchAnswer"}]}
        one["responses"]["202"] = RESPONSES["accepted"] | {"content": {"application/json": {"schema": either}}}
        parts = {"oneOf": [{"$ref": f"{SCHEMAS}Finished"}, batch["schema"]]}
        one["responses"]["207"] = {
            "description": "Several runs, or events of a batch, and not all went well",
            "content": {"application/json": {"schema": parts}},
        }
    call = _operation(
        "call", "functions", "Call a function by its name",
        "Runs that function, whatever its subscriptions say. Input and parameters are checked before there is a run.",
        {"required": False, "content": ANY_BYTES},
        [path_parameter("name", "The function"), *_ASKED],
    )  # fmt: skip
    return {
        "/v1/topics/{topic}": {"post": topic},
        "/v1/events": {"post": events},
        "/v1/functions/{name}/calls": {"post": call},
    }


def call_operation(
    name: str, description: str | None, labels: Mapping[str, str], body: dict[str, Any],
    parameters: list[dict[str, Any]], output: dict[str, Any] | None,
) -> Operation:  # fmt: skip
    """The call of one function as it is declared."""
    operation = _operation(
        f"call_{name.replace('-', '_')}", "functions", (description or f"Call {name}").partition("\n")[0][:120],
        description or "", body, [*parameters, *_ASKED],
    )  # fmt: skip
    if labels:
        operation["x-labels"] = dict(labels)
    if output is not None:
        operation["responses"]["200"] = RESPONSES["finished"] | {
            "description": "Waited for: the function's output",
            "content": {"application/json": {"schema": output}, **ANY_BYTES},
        }
    return operation


def components() -> dict[str, dict[str, Any]]:
    """What the operations refer to."""
    return {
        "schemas": {**_models(Accepted, Finished, BatchAnswer), "Problem": PROBLEM, "CloudEvent": CLOUD_EVENT},
        "parameters": PARAMETERS,
        "responses": RESPONSES,
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a JWT"},
            "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
        },
    }


def _models(*models: type[BaseModel]) -> dict[str, Any]:
    _, document = models_json_schema([(model, "serialization") for model in models], ref_template=SCHEMAS + "{model}")
    found: dict[str, Any] = document["$defs"]
    return found


def _operation(
    identifier: str, tag: str, summary: str, description: str, body: dict[str, Any], parameters: list[dict[str, Any]]
) -> Operation:
    references = {
        "200": {"$ref": "#/components/responses/finished"},
        "202": {"$ref": "#/components/responses/accepted"},
        "207": {"$ref": "#/components/responses/partly"},
    }
    return {
        "operationId": identifier,
        "tags": [tag],
        "summary": summary,
        "description": description,
        "parameters": parameters,
        "requestBody": body,
        "responses": {**references, **_PROBLEMS},
    }
