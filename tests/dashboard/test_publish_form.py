"""The form for publishing: made from a schema, read back into JSON, checked field by field, sent once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from invoker.gateway.dashboard.publish_view import (
    Target,
    Typed,
    empty_form,
    read_typed,
    shown_form,
    switched,
    typed_event,
)
from invoker.gateway.dashboard.schema_form import field_at, fields_of, pointer_of, texts_of, value_of
from invoker.schema import Schema
from invoker.views import FunctionInfo, ParameterInfo
from tests.conftest import eventually
from tests.custody.workload import function
from tests.dashboard.html_page import Element
from tests.dashboard.visitor import Visitor, visiting
from tests.gateway.access_world import add_key
from tests.gateway.stack import FILE, INPUT, Stack, running_gateway, running_stack

HOSTILE = '"><script>alert(1)</script>'
SCHEMA: dict[str, Any] = {
    "type": "object",
    "$defs": {"size": {"type": "integer", "minimum": 1, "description": "Of one side"}},
    "required": ["user", "level", "version"],
    "properties": {
        "user": {"type": "string", "description": HOSTILE},
        "password": {"type": "string", "format": "password", "default": "never-shown"},
        "level": {"type": "integer", "minimum": 1, "maximum": 9, "default": 5},
        "ratio": {"type": ["number", "null"]},
        "size": {"$ref": "#/$defs/size"},
        "kind": {"enum": ["a", 3, None]},
        "urgent": {"type": "boolean"},
        "note": {"type": "string", "maxLength": 2000},
        "items": {"type": "array", "items": {"type": "integer"}},
        "version": {"const": "v1"},
    },
}
PARAMETERS = [
    {"name": "level", "schema": {"type": "integer", "minimum": 1}, "default": 6},
    {"name": "mode", "schema": {"type": "string", "enum": ["fast", "slow"]}, "required": True},
]

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TYPED_TEXTS = st.one_of(
    TEXTS, st.integers().map(str), st.floats().map(str), st.sampled_from(["true", "null", '"a"', "[]"])
)
LEAVES = st.one_of(
    st.fixed_dictionaries({"type": st.just("string")}, optional={"minLength": st.integers(0, 3), "default": TEXTS}),
    st.fixed_dictionaries({"type": st.sampled_from(["integer", "number"])}, optional={"minimum": st.integers(-5, 5)}),
    st.just({"type": "boolean"}),
    st.lists(
        st.one_of(TEXTS, st.integers(-3, 3), st.none(), st.booleans()), min_size=1, max_size=3, unique_by=repr
    ).map(lambda values: {"enum": values}),
    st.sampled_from(
        [{}, {"type": ["string", "null"]}, {"type": "array"}, {"const": 1}, {"x-secret": True}, {"minimum": 0}]
    ),
)
SCHEMAS = st.dictionaries(TEXTS.filter(bool), LEAVES, min_size=1, max_size=4).flatmap(
    lambda named: st.lists(st.sampled_from(sorted(named)), unique=True).map(
        lambda required: {"type": "object", "properties": named, "required": required, "additionalProperties": False}
    )
)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXTS, inner, max_size=2)),
    max_leaves=4,
)


@given(schema=SCHEMAS, data=st.data())
def test_what_the_form_gives_back_validates_or_the_field_is_named(schema: dict[str, Any], data: st.DataObject) -> None:
    fields = fields_of(schema)
    assert fields is not None
    assert [one.name for one in fields] == list(schema["properties"])
    texts = {one.name: data.draw(TYPED_TEXTS) for one in fields}
    value, problems = value_of(fields, texts)
    assert json.loads(json.dumps(value)) == value
    named = {field_at(one["pointer"]) for one in problems}
    assert named <= set(schema["properties"])
    assert not named & set(value)
    refused = Schema(schema).problems(value)
    if not problems:
        assert {field_at(one["pointer"]) for one in refused} <= set(schema["properties"])


@given(schema=SCHEMAS, data=st.data())
def test_a_value_that_the_fields_can_say_comes_back_as_it_was(schema: dict[str, Any], data: st.DataObject) -> None:
    fields = fields_of(schema)
    assert fields is not None
    value = {name: data.draw(VALUES) for name in schema["properties"] if data.draw(st.booleans())}
    texts = texts_of(fields, value)
    if texts is not None:
        assert json.dumps(value_of(fields, texts)[0], sort_keys=True) == json.dumps(value, sort_keys=True)


@given(schema=VALUES)
def test_whatever_stands_where_a_schema_is_wanted_gives_fields_or_none(schema: Any) -> None:
    fields_of(schema)
    fields_of({"type": "object", "properties": schema})
    fields_of({"properties": {"a": schema}, "required": schema})


@given(name=TEXTS)
def test_a_pointer_leads_back_to_its_field(name: str) -> None:
    assert field_at(pointer_of(name)) == name


@pytest.mark.parametrize(
    ("schema", "kind", "initial"),
    [
        ({"type": "string"}, "text", ""),
        ({"type": "string", "maxLength": 5000}, "lines", ""),
        ({"type": ["null", "integer"], "default": 3}, "integer", "3"),
        ({"type": "number", "default": 1.5}, "number", "1.5"),
        ({"minimum": 3}, "number", ""),
        ({"pattern": "^a"}, "text", ""),
        ({"type": "boolean", "default": False}, "choice", "false"),
        ({"enum": ["a", {"b": 1}]}, "json", ""),
        ({"const": "x"}, "choice", '"x"'),
        ({"type": "object", "default": {"a": 1}}, "json", '{\n  "a": 1\n}'),
        ({"type": ["string", "integer"]}, "json", ""),
        ({"anyOf": [{"type": "string"}]}, "json", ""),
        ({"type": "string", "writeOnly": True, "default": "s"}, "text", ""),
        ({"$ref": "#/$defs/none"}, "json", ""),
        ({"$ref": "#/properties/field"}, "json", ""),
        ({"$ref": "#/$defs/word", "default": "a"}, "text", "a"),
        (True, "json", ""),
    ],
)
def test_the_kind_of_a_field(schema: Any, kind: str, initial: str) -> None:
    document = {"properties": {"field": schema}, "required": ["field"], "$defs": {"word": {"type": "string"}}}
    fields = fields_of(document)
    assert fields is not None
    assert (fields[0].kind, fields[0].initial) == (kind, initial)


NO_FIELDS = [
    None,
    True,
    {"type": "array"},
    {"type": "object"},
    {"type": "string", "properties": {"a": {}}},
    {"properties": {}},
    {"properties": {str(one): {} for one in range(500)}},
]


@pytest.mark.parametrize("schema", NO_FIELDS)
def test_what_is_no_object_of_fields_is_written_as_text(schema: Any) -> None:
    assert fields_of(schema) is None


def target(**more: Any) -> Target:
    info = FunctionInfo(
        name="f", input_schema=SCHEMA, parameters=tuple(map(ParameterInfo.model_validate, PARAMETERS)), **more
    )
    return Target("t", "f", (info,))


def test_defaults_stand_in_the_form_at_first_but_no_secret() -> None:
    form = empty_form(target())
    texts = {one.field.name: one.text for one in form.fields or ()}
    assert texts | {"password": "", "level": "5", "version": '"v1"'} == texts
    assert {one.field.name: one.text for one in form.parameters} == {"level": "6", "mode": ""}
    assert not any("never-shown" in repr(one) for one in form.fields or ())


def test_switching_loses_nothing() -> None:
    sent = {"mode": "fields", "f:user": "x", "f:level": "5", "f:note": "a\r\nb", "p:mode": "slow"}
    raw = switched(target(), read_typed(target(), sent), "raw")
    assert (raw.mode, json.loads(raw.raw)) == ("raw", {"user": "x", "level": 5, "note": "a\nb"})
    typed = Typed("raw", {}, {"mode": "slow"}, raw.raw, raw.content_type)
    back = switched(target(), typed, "fields")
    assert {one.field.name: one.text for one in back.fields or () if one.text} == {
        "user": "x",
        "level": "5",
        "note": "a\nb",
    }
    assert [one.text for one in back.parameters] == ["", "slow"]
    for text in ("[1]", '{"other": 1}', '{"user": ""}', '{"level": true}', "{"):
        kept = switched(target(), Typed("raw", {}, {}, text, "application/json"), "fields")
        assert (kept.mode, kept.raw) == ("raw", text)
        assert kept.raw_problems
    kept = switched(target(), read_typed(target(), sent | {"f:level": "many"}), "raw")
    assert kept.mode == "fields"
    assert ("must be a whole number",) in [one.problems for one in kept.fields or ()]


def test_problems_stand_beside_their_fields() -> None:
    typed = Typed("fields", {"level": "77"}, {}, "", "")
    of_input = [
        {"pointer": "/level", "detail": "too much"},
        {"pointer": "", "detail": "odd"},
        {"pointer": "/x/y", "detail": "z"},
    ]
    form = shown_form(target(), typed, of_input=of_input, of_parameters=[{"pointer": "/params/mode", "detail": "none"}])
    assert [one.problems for one in form.fields or () if one.problems] == [("too much",)]
    assert [one.problems for one in form.parameters] == [(), ("none",)]
    assert form.problems == ("odd", "/x/y: z")
    form = shown_form(target(), Typed("raw", {}, {}, "", ""), of_input=of_input)
    assert form.raw_problems == ("/level: too much", "odd", "/x/y: z")
    assert form.is_wrong


def test_an_empty_text_is_an_event_without_bytes() -> None:
    other = Target("t", None, ())
    assert typed_event(other, read_typed(other, {"mode": "raw", "raw": "", "type": ""})) == (b"", None, [])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    form = function(
        "form",
        "form.*",
        f'printf \'%s \' "$MODE" "$LEVEL"; {INPUT}',
        input={"as": "file", "schema": SCHEMA},
        output={"from": "stdout"},
        parameters=PARAMETERS,
        env=[{"name": "MODE", "value": "{{params.mode}}"}, {"name": "LEVEL", "value": "{{params.level}}"}],
    )
    functions = [form, function("echo", "echo.>", INPUT, **FILE), function("also", "echo.both", INPUT, **FILE)]
    async with running_stack(tmp_path_factory.mktemp("stack"), functions=functions) as running:
        yield running


async def output_of(stack: Stack, location: str) -> str:
    """What came of the request that a form led to."""
    request_id = location.split("/")[3].partition("?")[0]
    view = await stack.client.result(request_id, wait=60)
    return (await stack.client.output(view.results[0])).decode()


async def test_what_is_typed_into_fields_is_published_once(stack: Stack, visitor: Visitor) -> None:
    page = await visitor.page("/ui/functions/form/publish")
    form = page.form("Publish")
    assert page.one("input", name="f:password")["type"] == "password"
    assert not page.has("script", text="alert")
    assert HOSTILE in page.text
    filled = {
        "f:user": "näme",
        "f:note": "a\r\nb",
        "f:kind": "3",
        "f:urgent": "true",
        "f:items": "[1]",
        "p:mode": "slow",
    }
    sent = [await visitor.send(form, **filled) for _ in range(2)]
    assert [one.status for one in sent] == [303, 303]
    assert sent[0].location == sent[1].location
    assert sent[0].location.endswith("?done=published")
    mode, level, event = (await output_of(stack, sent[0].location)).split(" ", 2)
    assert (mode, level) == ("slow", "6")
    assert json.loads(event) == {
        "user": "näme", "level": 5, "note": "a\nb", "kind": 3, "urgent": True, "items": [1], "version": "v1",
    }  # fmt: skip


async def test_what_does_not_fit_stands_beside_its_field_and_nothing_is_lost(visitor: Visitor) -> None:
    form = (await visitor.page("/ui/functions/form/publish")).form("Publish")
    wrong = {
        "f:level": "77",
        "f:ratio": HOSTILE,
        "f:items": "[1",
        "f:password": "typed",
        "f:kind": "nothing",
        "p:level": "0",
    }
    seen = await visitor.send(form, **wrong)
    assert seen.status == 422
    page, again = seen.page, seen.page.form("Publish")
    for name, text in wrong.items():
        assert again.value(name) == text
    assert {name for name in wrong_fields(page)} == {"user", "level", "ratio", "items", "kind", "p:level", "p:mode"}
    assert page.one(role="alert").text.startswith("Nothing was published")
    assert not page.has("script", text="alert")
    seen = await visitor.send(
        again,
        **{"f:user": "x", "f:level": "9", "f:ratio": "", "f:items": "", "f:kind": "", "p:level": "1", "p:mode": "fast"},
    )
    assert seen.status == 303


def wrong_fields(page: Element) -> list[str]:
    """The fields that are drawn as wrong, by name."""
    return [str(one.get("name")).removeprefix("f:") for one in page.all(aria_invalid="true")]


async def test_the_input_may_be_written_as_text(stack: Stack, visitor: Visitor) -> None:
    form = (await visitor.page("/ui/functions/form/publish")).form("Publish")
    seen = await visitor.send(form, switch="raw", **{"f:user": "x"})
    assert seen.status == 200
    raw = seen.page.form("Publish")
    assert json.loads(raw.value("raw") or "") == {"user": "x", "level": 5, "version": "v1"}
    seen = await visitor.send(raw, raw='{"user": 1}', **{"p:mode": "fast"})
    assert seen.status == 422
    assert "/user: 1 is not of type" in seen.page.one(id="raw-wrong").text
    assert seen.page.form("Publish").value("raw") == '{"user": 1}'
    seen = await visitor.send(raw, raw='{"user": "y", "level": 1, "version": "v1"}', **{"p:mode": "fast"})
    assert json.loads((await output_of(stack, seen.location)).split(" ", 2)[2])["user"] == "y"


async def test_on_a_topic_any_text_may_be_published(stack: Stack, visitor: Visitor) -> None:
    asked = (await visitor.page("/ui/publish")).form("Go on")
    page = (await visitor.send(asked, topic="echo.a/b c ü".replace(" ", ""))).page
    assert "Here listen, unless their filters say no: echo." in page.text
    seen = await visitor.send(page.form("Publish"), raw=f"\n{HOSTILE}\r\n", type="text/x")
    view = await stack.client.result(seen.location.split("/")[3].partition("?")[0], wait=60)
    assert await output_of(stack, seen.location) == f"\n{HOSTILE}\n"
    assert (view.topic, view.record and view.record.body.content_type) == ("echo.a/bcü", "text/x")
    assert (await visitor.get("/ui/publish?topic=a+b")).status == 422
    assert (await visitor.get("/ui/publish?topic=invoker.x")).status == 422
    assert "No function that you see" in (await visitor.page("/ui/publish?topic=nobody")).text
    page = await visitor.page("/ui/publish?topic=echo.both")
    assert not [name for name, _ in page.form("Publish").fields if name.startswith("f:")]
    page = await visitor.page("/ui/publish?topic=form.x")
    assert (await visitor.send(page.form("Publish"), **{"f:level": "x"})).status == 422
    raw = (await visitor.send(page.form("Publish"), switch="raw")).page.form("Publish")
    assert (await visitor.send(raw, raw="no json")).status == 303


async def test_a_form_that_was_sent_with_something_else_is_drawn_again(visitor: Visitor) -> None:
    form = (await visitor.page("/ui/publish?topic=echo.once")).form("Publish")
    assert (await visitor.send(form, raw="one")).status == 303
    seen = await visitor.send(form, raw="two")
    assert seen.status == 422
    assert "sent before" in seen.page.one(role="alert").text
    again = seen.page.form("Publish")
    assert again.value("raw") == "two"
    assert again.value("once") != form.value("once")
    assert (await visitor.send(again)).status == 303
    assert (await visitor.send(again, once=None)).status == 400


async def test_only_who_may_publish_has_the_form(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    reads, sends = add_key(file, "reads", "read"), add_key(file, "sends", "publish echo.> form")
    async with (
        running_gateway(stack.server.url, gateway_keys=file, gateway_anonymous=()) as up,
        visiting(up.url, reads) as reader,
        visiting(up.url, sends) as sender,
    ):

        async def known() -> bool:
            return up.gateway.catalog.function("form") is not None

        await eventually(known, what="the catalog in the other gateway")
        for address in ("/ui/functions/form/publish", "/ui/publish?topic=echo.a", "/ui/publish"):
            assert (await reader.get(address)).status == 403
            assert (await reader.ask("POST", address, "once=a1&raw=x&mode=raw")).status == 403
        assert (await sender.get("/ui/functions/echo/publish")).status == 403
        assert (await sender.get("/ui/publish?topic=form.x")).status == 403
        page = await sender.page("/ui/functions/form/publish")
        assert "never-shown" not in page.text
        form = (await sender.page("/ui/publish?topic=echo.a")).form("Publish")
        seen = await sender.send(form, raw="x")
        assert (seen.status, seen.location) == (303, "/ui/publish?topic=echo.a&done=sent")
        assert "You may not read" in (await sender.page(seen.location)).text
