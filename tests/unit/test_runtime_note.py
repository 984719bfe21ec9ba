"""Notes about failures: always JSON, never above 4 KiB, whatever the function raised."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from invoker.runtime.note import MAX_NOTE_BYTES, beginning, encode_note, lean_traceback, name_of, tail, words_of

ANY_TEXT = st.text(alphabet=st.characters(), max_size=300).flatmap(
    lambda text: st.integers(1, 60).map(lambda times: text * times)
)


@given(
    ANY_TEXT,
    ANY_TEXT,
    ANY_TEXT,
    st.lists(st.fixed_dictionaries({"pointer": ANY_TEXT, "detail": ANY_TEXT}), max_size=30),
)
def test_a_note_is_small_and_valid(kind: str, message: str, trace: str, errors: list[dict[str, str]]) -> None:
    data = encode_note(
        {"type": kind, "message": message, "traceback": trace, "reason": "invalid-input", "errors": errors}
    )
    assert len(data) <= MAX_NOTE_BYTES
    note = json.loads(data)
    assert note["reason"] == "invalid-input"
    assert isinstance(note["type"], str)
    assert isinstance(note["message"], str)


def test_a_note_of_control_characters_is_small_too() -> None:
    # One byte of text, six of JSON: the bound counts what is written.
    data = encode_note({"type": "\0" * 500, "message": "\0" * 5000, "traceback": "\0" * 5000, "errors": None})
    assert len(data) <= MAX_NOTE_BYTES
    assert json.loads(data)["type"].startswith("\0")


def test_a_traceback_keeps_its_end_and_a_message_its_beginning() -> None:
    note = json.loads(encode_note({"type": "E", "message": "first" + "m" * 5000, "traceback": "t" * 9000 + "last"}))
    assert note["message"].startswith("first")
    assert note["traceback"].endswith("last")
    assert len(note["traceback"].encode()) <= 2048


@given(st.text(), st.integers(4, 50))
def test_cut_texts_fit_and_stay_text(text: str, limit: int) -> None:
    assert len(beginning(text, limit).encode("utf-8", "replace")) <= max(limit, 3)
    assert len(tail(text, limit).encode("utf-8", "replace")) <= max(limit, 3)


def test_an_exception_whose_text_raises_is_named_all_the_same() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert words_of(BrokenError()) == "(its text cannot be had: RuntimeError)"
    assert name_of(ValueError()) == "ValueError"
    assert name_of(BrokenError()).endswith("BrokenError")


def test_a_lean_traceback_frees_what_its_frames_hold() -> None:
    freed: list[str] = []

    class Large:
        def __del__(self) -> None:
            freed.append("freed")

    def inner() -> None:
        large: Any = Large()
        raise MemoryError(f"no room {large is not None}")

    error = raised(inner)
    text = lean_traceback(error)
    assert freed == ["freed"]
    assert error.__traceback__ is None
    assert "in inner" in text
    assert text.endswith("MemoryError: no room True\n")


def raised(act: Callable[[], None]) -> BaseException:
    """What it raises, as it is: `pytest.raises` would keep the frames alive."""
    try:
        act()
    except MemoryError as error:
        return error
    raise AssertionError("nothing was raised")
