"""Text and headers in HTTP headers, and JSON without `json`: read back as they were written."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker.runtime import lean_json
from invoker.runtime.headers import decode_headers, decode_text, encode_headers, encode_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_is_read_back(text: str) -> None:
    value = encode_text(text)
    assert decode_text(value) == text
    assert value.isascii()
    assert " " not in value
    assert value.isprintable()


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="%")))
def test_ordinary_text_is_its_own_encoding(text: str) -> None:
    assert encode_text(text) == text


@pytest.mark.parametrize(("value", "text"), [("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("a%20b", "a b"), ("%41", "A")])
def test_a_percent_that_begins_no_code_stands_for_itself(value: str, text: str) -> None:
    assert decode_text(value) == text


@given(st.dictionaries(st.text(), st.text()))
def test_headers_are_read_back(headers: dict[str, str]) -> None:
    headers = {clean(key): clean(value) for key, value in headers.items()}
    value = encode_headers(headers)
    assert value.isascii()
    assert decode_headers(value) == headers


@given(st.text(max_size=50))
def test_what_is_no_headers_is_a_value_error(value: str) -> None:
    try:
        headers = decode_headers(value)
    except ValueError:
        return
    assert isinstance(headers, dict)


@given(JSON)
def test_json_is_what_json_says(value: Any) -> None:
    text = lean_json.dumps(value)
    assert text == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert lean_json.loads(text) == value
    assert lean_json.loads(json.dumps(value, indent=2).encode()) == value


@given(
    st.binary(max_size=40)
    | st.text(max_size=40).map(str.encode)
    | st.text(alphabet='{}[]",:0123eE.+-ntf \\u', max_size=12)
)
def test_bad_json_is_refused_as_json_refuses_it(data: bytes | str) -> None:
    try:
        wanted = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError):
        with pytest.raises(ValueError, match=r".+"):
            lean_json.loads(data)
    else:
        assert lean_json.loads(data) == wanted


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "Expecting value at line 1, column 1"),
        (b'{"a": tru}', "line 1, column 7"),
        (b'{"a": 1} x', "Extra data at line 1, column 10"),
        (b"NaN", "NaN is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_the_sentence_names_the_place(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lean_json.loads(data)


FRESH = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("lean_json", sys.argv[1])
lean_json = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lean_json)
assert "json" not in sys.modules
try:
    lean_json.loads(sys.argv[2])
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{bad", "is not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        ('{"a" 1}', "is not JSON: Expecting ':' delimiter at line 1, column 6"),
        ('"open', "is not JSON: Unterminated string starting at at line 1, column 1"),
    ],
)
def test_the_place_is_named_in_a_process_that_has_not_loaded_json(data: str, words: str) -> None:
    """The C scanner of Python 3.11 takes its error from `json.decoder`, and has none where nobody imported that."""
    asked = subprocess.run(
        [sys.executable, "-I", "-S", "-c", FRESH, lean_json.__file__, data], capture_output=True, text=True, check=False
    )
    assert (asked.stdout.strip(), asked.stderr) == (words, "")


def test_a_byte_order_mark_and_utf_16_are_read() -> None:
    assert lean_json.loads(b"\xef\xbb\xbf[1]") == [1]
    assert lean_json.loads("[1]".encode("utf-16")) == [1]


@pytest.mark.parametrize("value", [{1, 2}, object(), [float("nan")], {(1, 2): 3}, {"a": float("inf")}])
def test_what_has_no_form_in_json_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        lean_json.dumps(value)


def refuse(name: str) -> Any:
    raise ValueError(name)


def clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
