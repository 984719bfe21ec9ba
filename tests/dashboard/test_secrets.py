"""Fields declared secret: whatever shape schema and payload have, who may not see them sees no value of one."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoker.gateway.dashboard import rendering
from invoker.gateway.dashboard.payload_view import (
    HEX_BYTES,
    MAX_LEVELS,
    MAX_NODES,
    READ_BYTES,
    TEXT_BYTES,
    PayloadView,
    editable,
    hex_rows,
    image_type,
    json_tree,
    payload_view,
    readable,
)
from invoker.gateway.dashboard.payloads import view_of
from invoker.gateway.dashboard.secrets import SecretPlaces, Veil, veil_of
from invoker.request import Content
from invoker.schema_secrets import CONCEALED

JSON = "application/json"
MARKS: list[dict[str, Any]] = [{"writeOnly": True}, {"format": "password"}, {"x-secret": True}]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def drawn(view: PayloadView) -> str:
    """The viewer as it stands in a page."""
    template = rendering._TEMPLATES.from_string("{% import 'payload.html' as p %}{{ p.payload(view, 'input') }}")
    return template.render(view=view)


def shown(value: Any, schema: Any) -> str:
    """The payload's page for somebody who may not see what the schema declares secret."""
    data = json.dumps(value).encode()
    return drawn(payload_view(data, len(data), JSON, "0" * 64, download="/download", veil=veil_of([schema])))


class Made:
    """A schema and a value for it, with which texts in the value are at secret places, and which are not."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._names = count()
        self.definitions: dict[str, Any] = {}
        self.secret: list[str] = []
        self.public: list[str] = []

    def pair(self, depth: int = 0) -> tuple[Any, Any]:
        """A schema, and a value where it applies."""
        kinds = ["public", "secret"] if depth > 3 else ["public", "secret", *self.SHAPES]
        kind = self._draw(st.sampled_from(kinds))
        if kind == "public":
            return {"type": "string"}, self._text(self.public)
        if kind == "secret":
            schema = {"type": "string"} | self._draw(st.sampled_from(MARKS))
            return self._wrapped(schema), self._text(self.secret)
        schema, value = self.pair(depth + 1)
        return self._shape(kind, schema, value)

    SHAPES = (
        "property", "pattern", "additional", "items", "prefix", "old items", "contains", "reference", "anchor",
        "allOf", "anyOf", "oneOf", "then", "else", "dependent", "unevaluated",
    )  # fmt: skip

    def _shape(self, kind: str, schema: Any, value: Any) -> tuple[Any, Any]:
        name = f"name-{next(self._names)}"
        match kind:
            case "property":
                return {"type": "object", "properties": {name: schema}}, {name: value, "other": 1}
            case "pattern":
                return {"patternProperties": {f"^{name}$": schema}}, {name: value}
            case "additional":
                return {"properties": {"other": True}, "additionalProperties": schema}, {name: value, "other": 1}
            case "unevaluated":
                return {"allOf": [{"properties": {"other": True}}], "unevaluatedProperties": schema}, {name: value}
            case "items":
                return {"type": "array", "items": schema}, [value]
            case "prefix":
                return {"prefixItems": [True, schema]}, [0, value]
            case "old items":
                return {"items": [True, schema], "additionalItems": schema}, [0, value]
            case "contains":
                return {"contains": schema}, [value]
            case "reference":
                self.definitions[name] = schema
                return {"$ref": f"#/$defs/{name}"}, value
            case "anchor":
                self.definitions[name] = schema | {"$anchor": name}
                return {"$dynamicRef": f"#{name}"}, value
            case "then":
                return {"if": {"type": "null"}, "then": schema}, value
            case "else":
                return {"if": True, "else": schema}, value
            case "dependent":
                return {"dependentSchemas": {name: schema}}, value
            case _:
                return {kind: [{"type": "null"}, schema]}, value

    def _wrapped(self, schema: Any) -> Any:
        """A mark beside a reference, or behind two of them."""
        if not self._draw(st.booleans()):
            return schema
        name = f"secret-{next(self._names)}"
        self.definitions[name] = schema
        return {"$ref": f"#/$defs/{name}", "description": "declared elsewhere"}

    def _text(self, kept: list[str]) -> Any:
        kept.append(f"zq{next(self._names)}qz")
        return kept[-1]


@st.composite
def payloads(draw: st.DrawFn) -> tuple[Any, Any, Made]:
    """A schema of several fields, a value, and what must not be seen of it."""
    made = Made(draw)
    pairs = [made.pair() for _ in range(draw(st.integers(1, 4)))]
    schema: Any = {"type": "object", "properties": {f"field{at}": one for at, (one, _) in enumerate(pairs)}}
    value = {f"field{at}": one for at, (_, one) in enumerate(pairs)}
    return schema | {"$defs": made.definitions}, value, made


@given(payloads())
@settings(max_examples=300)
def test_no_value_at_a_secret_place_is_on_the_page(made: tuple[Any, Any, Made]) -> None:
    schema, value, texts = made
    page = shown(value, schema)
    assert [one for one in texts.secret if one in page] == []
    assert (CONCEALED in page) == bool(texts.secret)
    assert [one for one in texts.public if one not in page] == [], "nothing is hidden in vain"
    assert ("/download" in page) == (not texts.secret), "bytes are given whole or not at all"


@given(payloads(), st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_a_schema_that_is_met_by_another_value_still_hides(made: tuple[Any, Any, Made], random: Any) -> None:
    """The value does not fit the schema: lists where texts were wanted, texts where objects were."""
    schema, value, _ = made
    fields = list(value)
    for one in fields:
        if random.random() < 0.5:
            value[one] = [value[one]] if random.random() < 0.5 else {"wrapped": value[one]}
    hidden = SecretPlaces(schema).without(value)
    for name, part in schema["properties"].items():
        if any(mark.items() <= part.items() for mark in MARKS):
            assert hidden[name] == CONCEALED, "whatever stands at a secret place"
    assert set(hidden) == set(fields)


@pytest.mark.parametrize("secret", MARKS)
@pytest.mark.parametrize("value", ["text", 12, 1.5, True, None, [1, [2]], {"a": {"b": "text"}}, ""])
def test_whatever_is_at_a_secret_place_is_hidden(secret: dict[str, Any], value: Any) -> None:
    schema = {"properties": {"card": secret}}
    assert SecretPlaces(schema).without({"card": value, "name": "Ada"}) == {"card": CONCEALED, "name": "Ada"}
    assert SecretPlaces(secret).without(value) == CONCEALED


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        pytest.param(
            {"properties": {"next": {"$ref": "#"}, "key": {"x-secret": True}}},
            {"next": {"next": {"key": "k"}, "key": "k"}, "plain": 1},
            {"next": {"next": {"key": CONCEALED}, "key": CONCEALED}, "plain": 1},
            id="recursive",
        ),
        pytest.param(
            {"properties": {"one": {"$ref": "other.json#/x"}}},
            {"one": "k", "two": "l"}, {"one": CONCEALED, "two": "l"},
            id="a reference to nowhere",
        ),
        pytest.param(
            {
                "$defs": {
                    "part": {
                        "$id": "part",
                        "$defs": {"k": {"x-secret": True}},
                        "properties": {"a": {"$ref": "#/$defs/k"}},
                    }
                },
                "properties": {"one": {"$ref": "part"}},
            },
            {"one": {"a": "k", "b": "l"}}, {"one": {"a": CONCEALED, "b": "l"}},
            id="a resource within the document",
        ),
        pytest.param(
            {"properties": {"a/b~c": {"x-secret": True}, "d": {"$ref": "#/properties/a~1b~0c"}}},
            {"a/b~c": 1, "d": 2}, {"a/b~c": CONCEALED, "d": CONCEALED},
            id="an escaped pointer",
        ),
        pytest.param(
            {"properties": {"a": {"contentSchema": {"properties": {"k": {"x-secret": True}}}}}},
            {"a": '{"k": "v"}', "b": "c"}, {"a": CONCEALED, "b": "c"},
            id="a document within a text",
        ),
        pytest.param(
            {"patternProperties": {"(?=x)y": {"x-secret": True}}}, {"any": "k"}, {"any": CONCEALED},
            id="a pattern that our engine does not take",
        ),
        pytest.param(
            {"patternProperties": {"^x-": {"x-secret": True}}}, {"x-a": "k", "b": "l"}, {"x-a": CONCEALED, "b": "l"},
            id="a pattern that fits some",
        ),
        pytest.param(
            {"items": {"anyOf": [{"properties": {"k": {"writeOnly": True}}}, {"type": "string"}]}},
            [{"k": 1}, "text"], [{"k": CONCEALED}, "text"],
            id="one branch of several",
        ),
        pytest.param({"writeOnly": "yes", "x-secret": 1}, {"a": 1}, {"a": 1}, id="marks that are none"),
        pytest.param(True, {"a": 1}, {"a": 1}, id="a schema that is true"),
    ],
)  # fmt: skip
def test_places_are_found_through_the_schema(schema: Any, value: Any, expected: Any) -> None:
    assert SecretPlaces(schema).without(value) == expected


def test_what_lies_too_deep_to_look_is_hidden() -> None:
    value: Any = "deep"
    for _ in range(150):
        value = {"a": value}
    schema = {"properties": {"a": {"$ref": "#"}, "k": {"x-secret": True}}}
    assert "deep" not in json.dumps(SecretPlaces(schema).without(value))


def test_a_pattern_that_would_stall_other_engines_does_not_stall_the_page() -> None:
    schema = {"patternProperties": {"^(a+)+$": {"x-secret": True}}}
    assert SecretPlaces(schema).without({"a" * 40 + "!": 1, "aa": 2}) == {"a" * 40 + "!": 1, "aa": CONCEALED}


@pytest.mark.parametrize(
    ("data", "content_type", "size"),
    [
        pytest.param(b'{"card": "4000', JSON, None, id="broken JSON"),
        pytest.param(b"card: 4000", "text/plain", None, id="text"),
        pytest.param(PNG, "image/png", None, id="an image"),
        pytest.param(b"\x00\x01", None, None, id="bytes"),
        pytest.param(b'{"card": "4000"}', JSON, 300_000, id="only the beginning was read"),
        pytest.param(b"[" * 100_000, JSON, None, id="too deep"),
    ],
)
def test_what_cannot_be_shown_without_its_secrets_is_not_shown(
    data: bytes, content_type: str, size: int | None
) -> None:
    veil = veil_of([{"properties": {"card": {"x-secret": True}}}])
    view = payload_view(data, size or len(data), content_type, "0" * 64, download="/d", image="/i", veil=veil)
    assert (view.kind, view.download, view.image, view.sha256, view.text, view.rows) == (
        "withheld",
        None,
        None,
        None,
        "",
        (),
    )
    assert "4000" not in drawn(view)
    assert payload_view(data, len(data), content_type, "0" * 64, download="/d", veil=Veil()).download == "/d"


def test_of_a_function_that_is_not_known_nothing_is_shown() -> None:
    veil = veil_of([], unknown=True)
    view = payload_view(b'{"a": 1}', 8, JSON, None, download="/d", veil=veil)
    assert (view.kind, view.hides) == ("withheld", True)
    assert "not in the catalog" in drawn(view)
    assert not veil_of([None, {"type": "object"}, True]).hides


# ---- the viewer itself


def test_numbers_are_shown_as_they_were_written() -> None:
    data = b'{"a": 12345678901234567890.10, "b": 1e400, "c": -0}'
    page = drawn(payload_view(data, len(data), JSON, None, download="/d"))
    for text in ("12345678901234567890.10", "1e400", "-0"):
        assert text in page


@pytest.mark.parametrize(
    ("data", "content_type", "kind"),
    [
        (b'{"a": 1}', None, "json"),
        (b"[]", "text/plain", "json"),
        (b'"text"', JSON, "json"),
        (b"12", "application/vnd.x+json; charset=utf-8", "json"),
        (b"12", None, "text"),
        (b"{not json", JSON, "text"),
        (b'{"a": NaN}', JSON, "text"),
        (b"[" * 50_000, JSON, "text"),
        ("naïve".encode(), "text/plain", "text"),
        (b"\xff\xfe", "text/plain", "hex"),
        (b"a\x00b", "text/plain", "hex"),
        (PNG, "image/png", "image"),
        (PNG, "IMAGE/PNG; a=b", "image"),
        (PNG, None, "hex"),
        (b"<svg onload=alert(1)>", "image/svg+xml", "text"),
        (b"<script>", "image/png", "text"),
        (b"", "image/png", "none"),
    ],
)
def test_each_payload_is_shown_as_what_it_is(data: bytes, content_type: str | None, kind: str) -> None:
    view = payload_view(data, len(data), content_type, None, download="/d", image="/i")
    assert view.kind == kind
    assert ("<img" in drawn(view)) == (kind == "image")


@pytest.mark.parametrize(
    ("data", "content_type", "kind"),
    [
        (PNG, "image/png", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg", "image/jpeg"),
        (b"GIF89a", "image/gif", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVE", "image/webp", None),
        (PNG, "image/jpeg", None),
        (PNG, "text/html", None),
        (b"<html>", "image/png", None),
    ],
)
def test_an_image_says_that_it_is_one_and_begins_like_one(data: bytes, content_type: str, kind: str | None) -> None:
    assert image_type(data, content_type) == kind


def test_large_documents_are_cut_and_say_so() -> None:
    rows = list(range(3 * MAX_NODES))
    tree, cut = json_tree({"rows": rows})
    assert cut
    assert sum(1 for _ in walked(tree)) <= MAX_NODES + 1
    deep: Any = 1
    for _ in range(2 * MAX_LEVELS):
        deep = [deep]
    tree, cut = json_tree(deep)
    assert cut
    assert any(one.kind == "cut" for one in walked(tree))
    long, cut = json_tree("x" * 100_000)
    assert cut
    assert len(long.text) < 3_000
    assert json_tree({"a": [1, 2]})[1] is False
    text = b"x" * (TEXT_BYTES + 1)
    view = payload_view(text, len(text), None, None, download="/d")
    assert (len(view.text), view.cut) == (TEXT_BYTES, True)
    assert "Show all as download" in drawn(view)
    data = bytes(2 * HEX_BYTES)
    assert len(payload_view(data, len(data), None, None, download="/d").rows) == HEX_BYTES // 16
    assert READ_BYTES >= TEXT_BYTES


def test_long_names_of_fields_are_cut_and_say_so() -> None:
    data = json.dumps({"k" * 200_000: 1}).encode()
    view = payload_view(data, len(data), JSON, None, download="/d")
    assert view.cut
    assert len(drawn(view)) < 10_000
    short = payload_view(b'{"kk": 1}', 9, JSON, None, download="/d")
    assert not short.cut
    hidden = payload_view(data, len(data), JSON, None, download="/d", veil=veil_of([{"x-secret": True}]))
    assert len(drawn(hidden)) < 10_000


async def test_others_go_on_while_a_large_payload_is_veiled() -> None:
    """Thousands of keys are tried with a pattern each: nobody waits for that but who asked."""
    value = {f"field-{number}": "x" for number in range(9_000)}
    data = json.dumps(value).encode()
    assert 32 * 1024 < len(data) < READ_BYTES
    veil = veil_of([{"patternProperties": {"^secret-": {"x-secret": True}}}])
    content = Content.inline(data, JSON)
    drawing = asyncio.create_task(view_of(content, data, "0" * 64, download="/d", veil=veil))
    turns = 0
    while not drawing.done():
        turns += 1
        await asyncio.sleep(0)
    assert (await drawing).kind == "json"
    assert turns > 10, "the loop stood still"


def test_a_character_cut_in_the_middle_is_left_out_and_wrong_ones_are_no_text() -> None:
    assert readable("aé".encode()[:2], whole=False) == "a"
    assert readable("aé".encode()[:2]) is None
    assert readable(b"a\xffbcdef", whole=False) is None
    assert editable(b"text", 4) == "text"
    assert editable(b"text", 5) is None
    assert [(row.offset, row.text) for row in hex_rows(b"0123456789abcdefg\x00")] == [
        ("00000000", "0123456789abcdef"),
        ("00000010", "g."),
    ]


def walked(node: Any) -> Any:
    yield node
    for one in node.children:
        yield from walked(one)
