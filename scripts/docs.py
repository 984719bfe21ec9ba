"""Writes the generated parts of `docs/` again: tables that must say what the code says.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything else on the page is written by
hand. `python scripts/docs.py` writes, `--check` only tells which pages are behind (exit code 1). `tests/unit/
test_layout.py` checks the same.
"""

from __future__ import annotations

import ast
import copy
import inspect
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from nats.aio.client import Client as NatsClient
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import invoker.errors
import invoker.gateway.settings
import trigger.kubernetes_settings
import trigger.settings
from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.errors import InvokerError
from invoker.exposition import Registry
from invoker.gateway.catalog_copy import CatalogCopy
from invoker.gateway.dead_news import DeadNews
from invoker.gateway.gateway import Gateway
from invoker.gateway.metrics import GatewayMetrics
from invoker.gateway.openapi import openapi_document
from invoker.gateway.routes import routers
from invoker.gateway.run_table import RunTable
from invoker.gateway.settings import GatewaySettings
from invoker.gateway.topic_table import TopicTable
from invoker.result import _REASONS, Reason, State
from invoker.setting_values import PREFIX
from invoker.shared_reads import SharedReads
from invoker.wire import Names
from trigger.function_fields import FunctionFields
from trigger.kubernetes_settings import KubernetesSettings
from trigger.metrics import Metrics
from trigger.settings import ControllerSettings
from trigger.verdict import Verdict

DOCS = Path(__file__).resolve().parents[1] / "docs"
CHART_FILES = DOCS.parent / "charts" / "invoker" / "files"
_FIELD = re.compile(r"^\| `([\w.\[\]]+)` \| .*? \| (.+) \|$", re.MULTILINE)
_LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")
_PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def reasons() -> str:
    """Every reason with the state it ends in, its class, and what each door makes of it."""
    rows = [
        (
            f"`{reason}`",
            f"`{Verdict(reason).final_state}`",
            info.result_class,
            str(info.http_status),
            str(info.exit_code),
            info.meaning,
        )
        for reason, info in _REASONS.items()
    ]
    return table(("reason", "state", "class", "HTTP status", "exit code", "meaning"), rows)


def errors() -> str:
    """Every error class of `invoker.errors`, the general before the special."""
    rows = [
        (f"`{kind.code}`", f"`{kind.__name__}`", str(kind.exit_code), str(kind.http_status), first_sentence(kind))
        for kind in error_classes()
    ]
    return table(("code", "class", "exit code", "HTTP status", "meaning"), rows)


def error_classes() -> list[type[InvokerError]]:
    """The error classes in the order of their module."""
    found = vars(invoker.errors).values()
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, InvokerError)]


def states() -> str:
    """Every finished state with the reasons that end in it."""
    ends: dict[State, list[str]] = {state: [] for state in State}
    for reason in Reason:
        ends[Verdict(reason).final_state].append(f"`{reason}`")
    rows = [(f"`{state}`", " ".join(ends[state])) for state in State if state.finished]
    return table(("state", "reasons"), rows)


def settings() -> str:
    """Every setting of the controller: variable, default, and the sentence beside it in `trigger/settings.py`."""
    notes = attribute_notes(trigger.kubernetes_settings, KubernetesSettings)
    notes |= attribute_notes(trigger.settings, ControllerSettings)
    return settings_table(ControllerSettings, notes)


def gateway_settings() -> str:
    """Every setting of the gateway, from `invoker/gateway/settings.py`."""
    return settings_table(GatewaySettings, attribute_notes(invoker.gateway.settings, GatewaySettings))


def settings_table(model: type[BaseModel], notes: dict[str, str]) -> str:
    """The fields of a model of settings, as their variables."""
    rows = [
        (
            f"`{PREFIX}{name.upper()}`",
            shown_default(field.default) if field.default_factory in (None, dict) else "computed",
            notes.get(name, ""),
        )
        for name, field in model.model_fields.items()
        if not name.startswith("test_")
    ]
    return table(("setting", "default", "meaning"), rows)


def shown_default(value: Any) -> str:
    """A default as it would be written into the environment."""
    if value is None or value is PydanticUndefined or value == ():
        return "–"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    if isinstance(value, float):
        return f"`{value:g}`" if value < 1e5 else f"`{int(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def attribute_notes(module: ModuleType, kind: type) -> dict[str, str]:
    """The strings below a class's attributes, by attribute."""
    tree = ast.parse(inspect.getsource(module))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    return {
        attribute.target.id: " ".join(note.value.value.split())
        for attribute, note in itertools.pairwise(body)
        if isinstance(attribute, ast.AnnAssign)
        and isinstance(attribute.target, ast.Name)
        and isinstance(note, ast.Expr)
        and isinstance(note.value, ast.Constant)
        and isinstance(note.value.value, str)
    }


def first_sentence(kind: type) -> str:
    """The first paragraph of a class's docstring, on one line."""
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def controller_metrics() -> str:
    """Every metric of a controller."""
    metrics = Metrics()
    metrics.of("function")
    metrics.expect_requests(["reason"])
    return metrics_table(metrics.registry)


def gateway_metrics() -> str:
    """Every metric of a gateway."""
    metrics = GatewayMetrics()
    metrics.expect_calls([("route", ["GET"])])
    metrics.told_store("source", up=True, behind=0)
    return metrics_table(metrics.registry)


def metrics_table(registry: Registry) -> str:
    """What a registry tells, without what the process itself does (Prometheus' own names)."""
    rows = [
        (
            f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
            family.type,
            " ".join(label for label in family.samples[0].labels if label != "le"),
            family.documentation,
        )
        for family in registry.collect()
        if family.name.startswith("invoker_")
    ]
    return table(("metric", "type", "labels", "meaning"), rows)


def alerts() -> str:
    """Every alert: after how long it fires, how bad it is, what it says."""
    document = yaml.safe_load((CHART_FILES / "alerts.yaml").read_text())
    rows = [
        (
            f"[{rule['alert']}](runbooks.md#{rule['alert'].lower()})",
            rule["labels"]["severity"],
            rule.get("for", "at once"),
            rule["annotations"]["summary"],
        )
        for group in document["groups"]
        for rule in group["rules"]
    ]
    return table(("alert", "severity", "after", "summary"), rows)


PARTS: dict[str, Callable[[], str]] = {
    "reasons": reasons,
    "errors": errors,
    "states": states,
    "controller-settings": settings,
    "gateway-settings": gateway_settings,
    "controller-metrics": controller_metrics,
    "gateway-metrics": gateway_metrics,
    "alerts": alerts,
}


def openapi() -> str:
    """The OpenAPI document of the gateway's fixed paths, as a file: a running gateway adds its functions."""
    options = ConnectionOptions()
    client = Client(NatsClient(), Names(), options)  # never connected: the routes are only described
    gateway = Gateway(
        GatewaySettings(), client, CatalogCopy(client), RunTable(client.feed),
        TopicTable(client.feed, Names()), DeadNews(client), SharedReads(client.stored.request),
    )  # fmt: skip
    routes = [route for router in routers(gateway) for route in router.routes]
    return json.dumps(openapi_document(routes), indent=1, ensure_ascii=False) + "\n"


def function_schema(page: str) -> str:
    """The JSON Schema of a function's file, for editors: of the models that read it, with the words of `page`, which is
    docs/functions.md. A controller checks more than a schema can say, and so does `invoker functions check`."""
    schema = _plain(FunctionFields.model_json_schema(by_alias=True))
    for path, words in field_meanings(page).items():
        _place(schema, path)["description"] = words
    text = json.dumps(schema)
    schema["$defs"] = {name: one for name, one in schema["$defs"].items() if f'#/$defs/{name}"' in text}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A function of Invoker"}
    return json.dumps(head | schema, indent=1, ensure_ascii=False) + "\n"


def field_meanings(page: str) -> dict[str, str]:
    """What the tables of the page say about each field."""
    section = page.split("## Every field")[1].split("## Filters")[0]
    return {path: _LINK.sub(r"\1", words).replace("`", "") for path, words in _FIELD.findall(section)}


def _place(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """Where the schema speaks of the field `a.b[].c`; what it only referred to on the way there stands there now."""
    here = schema
    for key in path.split("."):
        place: dict[str, Any] = here["properties"][key.removesuffix("[]")]
        here = place["items"] if key.endswith("[]") else place
        if "$ref" in here:
            here |= copy.deepcopy(schema["$defs"][here.pop("$ref").removeprefix("#/$defs/")])
    return place


def _plain(value: Any) -> Any:
    """Without titles, which say no more than names, and without null beside a type: it makes an editor's words about
    a mistake useless, and a key without a value is the same as none."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _plain(one) for key, one in value.items() if key != "title" or isinstance(one, dict)}
    types = [one for one in found.get("anyOf", ()) if one != {"type": "null"}]
    if len(types) == 1:
        del found["anyOf"]
        found |= types[0]
    elif types:
        found["anyOf"] = types
    if "default" in found and found["default"] is None:
        del found["default"]
    return found


def written(text: str) -> str:
    """The page with every generated part made anew. Raises `KeyError` for a part that does not exist."""
    return _PART.sub(lambda match: f"{match[1]}{PARTS[match[2]]()}{match[3]}", text)


def pages() -> Iterator[tuple[Path, str, str]]:
    """Every page as it is and as it should be."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        yield page, text, written(text)
    document = DOCS / "openapi.json"
    yield document, document.read_text() if document.exists() else "", openapi()
    schema = DOCS / "function.schema.json"
    wanted = function_schema((DOCS / "functions.md").read_text())
    yield schema, schema.read_text() if schema.exists() else "", wanted


def main(arguments: list[str]) -> int:
    behind = [(page, wanted) for page, text, wanted in pages() if text != wanted]
    for page, wanted in behind:
        print(f"{'behind' if arguments else 'wrote'} {page.relative_to(DOCS.parent)}")
        if not arguments:
            page.write_text(wanted)
    return 1 if arguments and behind else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
