"""Schemas: what fits, where it does not, and that neither network nor time can be had through one."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoker.schema import MAX_DETAIL_CHARACTERS, MAX_ERRORS, Schema, SchemaError

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("data", "problems"),
    [
        (b'{"name": "Ada", "age": 36}', []),
        (b"{}", [("", '"name" is a required property')]),
        (
            b'{"nme": "Ada"}',
            [("", '"name" is a required property'), ("/nme", "unknown field; did you mean 'name'?")],
        ),
        (b'{"name": "Ada", "x/y": 1}', [("/x~1y", "unknown field")]),
        (b'{"name": "Ada", "age": -1}', [("/age", "-1 is less than the minimum of 0")]),
        (b'{"name": "Ada", "age": "old"}', [("/age", '"old" is not of type "integer"')]),
        (b"[]", [("", '[] is not of type "object"')]),
        (b"", [("", "is empty where JSON is wanted")]),
        (b"  \n", [("", "is empty where JSON is wanted")]),
        (b"{", [("", "is not JSON: EOF while parsing an object at line 1 column 1")]),
        (b'{"name": NaN}', [("", "is not JSON: expected value at line 1 column 10")]),
        (b"\xff\x00", [("", "is not JSON: expected value at line 1 column 1")]),
        (b"[" * 5000, [("", "is not JSON: recursion limit exceeded at line 1 column 202")]),
    ],
)
def test_problems_of_bytes(data: bytes, problems: list[tuple[str, str]]) -> None:
    found = [(one["pointer"], one["detail"]) for one in Schema(PERSON).problems_of_bytes(data)]
    assert sorted(found) == sorted(problems)


def test_the_content_type_does_not_excuse_bytes_from_the_schema() -> None:
    assert Schema(PERSON).problems_of_bytes(b"\x00\x01", "application/octet-stream")
    assert Schema(PERSON).problems_of_bytes(b'{"name": "Ada"}', "application/octet-stream") == []


def test_declared_text_that_is_no_json_is_checked_as_text() -> None:
    schema = Schema({"type": "string", "maxLength": 5})
    assert schema.problems_of_bytes(b"hello", "text/plain; charset=utf-8") == []
    assert schema.problems_of_bytes(b"hello world", "text/plain") != []
    assert schema.problems_of_bytes(b"hello") != []
    assert Schema(PERSON).problems_of_bytes(b'{"name": "Ada"}', "text/plain") == []


def test_unknown_fields_deep_in_the_input_are_suggested_too() -> None:
    schema = Schema({"properties": {"people": {"type": "array", "items": PERSON}}})
    problems = schema.problems({"people": [{"name": "Ada"}, {"name": "Bo", "aeg": 3}]})
    assert problems == [{"pointer": "/people/1/aeg", "detail": "unknown field; did you mean 'age'?"}]


def test_the_list_of_problems_is_short_and_so_is_each() -> None:
    schema = Schema({"items": {"type": "integer"}})
    problems = schema.problems(["x" * 10_000] * 1000)
    assert len(problems) == MAX_ERRORS
    assert all(len(problem["detail"]) <= MAX_DETAIL_CHARACTERS for problem in problems)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "a JSON Schema is an object"),
        ("x", "a JSON Schema is an object"),
        ({"type": "strin"}, "not a JSON Schema"),
        ({"minimum": "x"}, 'not a JSON Schema: "x" is not of type "number"'),
        ({"$ref": "http://127.0.0.1:9/a.json"}, "the reference 'http://127.0.0.1:9/a.json' is refused"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "the reference 'file:///etc/passwd' is refused"),
        ({"$ref": "other.json"}, "the reference 'other.json' is refused"),
        ({"$ref": "#/$defs/nowhere"}, "not a JSON Schema: Pointer '/$defs/nowhere' does not exist"),
        ({"$schema": "http://127.0.0.1:9/mine"}, "not a JSON Schema: Unknown meta-schema"),
        ({"pattern": "(?=a)b"}, "patterns run in linear time"),
        ({"pattern": r"(a)\1"}, "patterns run in linear time"),
        ({"pattern": "((a{1000}){1000}){1000}"}, "patterns run in linear time"),
        ({"pattern": "("}, "patterns run in linear time"),
    ],
)
def test_refused_schemas(document: Any, words: str) -> None:
    with pytest.raises(SchemaError) as refused:
        Schema(document)
    assert words in str(refused.value)
    assert len(str(refused.value)) <= MAX_DETAIL_CHARACTERS


def test_a_schema_that_is_really_there_is_not_fetched_either(tmp_path: Path) -> None:
    """A server and a file that would answer: the refusal must not come from the fetch having failed."""
    asked: list[str] = []

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"true")

        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "schema.json").write_text("true")
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            for uri in (f"http://127.0.0.1:{server.server_port}/schema.json", f"file://{tmp_path}/schema.json"):
                for document in (
                    {"$ref": uri},
                    {"$id": uri, "$ref": "other.json"},
                    {"properties": {"a": {"$ref": uri}}},
                ):
                    with pytest.raises(SchemaError, match="is refused"):
                        Schema(document)
        finally:
            server.shutdown()
            thread.join()
    assert asked == []


def test_references_within_the_schema_are_followed_and_end() -> None:
    tree = Schema({"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"})
    assert tree.problems([[], [[]]]) == []
    assert tree.problems([[], [1]]) != []
    assert Schema({"$ref": "#"}).problems(1) == []


def test_a_pattern_made_to_stall_does_not() -> None:
    """A backtracking engine works half a minute for this; what others do on a busy machine does not count."""
    started = time.process_time()
    assert Schema({"pattern": "^(a+)+$"}).problems("a" * 10_000 + "!")
    assert time.process_time() - started < 15


@given(JSON)
@settings(max_examples=300, deadline=None)
def test_checking_never_raises_whatever_the_value(value: Any) -> None:
    for document in (PERSON, {"type": ["array", "null"], "items": PERSON}, True, False):
        assert isinstance(Schema(document).problems(value), list)


def test_a_lone_surrogate_is_a_problem_and_no_crash() -> None:
    [problem] = Schema({"type": "string"}).problems("\ud800")
    assert problem["detail"].startswith("cannot be checked")
