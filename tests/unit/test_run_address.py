"""A run's address and token: read back as they were written, and nothing else is taken for one."""

from __future__ import annotations

import base64
import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker import wire
from invoker.errors import UnknownIdError
from invoker.gateway.run_address import RunAddress, check_token, function_uid, parse, parse_uid, run_token, run_url

ADDRESS = RunAddress("request-1", "convert", "hash", "c7", "kubernetes", "ns/job")
TEXT = st.text(max_size=40).filter(lambda text: text.isprintable())


@given(TEXT, TEXT, TEXT, TEXT, TEXT, st.none() | TEXT)
def test_an_address_is_read_back(a: str, b: str, c: str, d: str, e: str, f: str | None) -> None:
    address = RunAddress(a, b, c, d, e, f)
    segment = address.path_token()
    assert parse(segment) == address
    assert set(segment) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_the_url_has_the_address_as_one_segment() -> None:
    url = run_url("http://127.0.0.1:8080/", ADDRESS)
    prefix, segment = url.rsplit("/", 1)
    assert prefix == "http://127.0.0.1:8080/v1/run"
    assert parse(segment) == ADDRESS
    assert ADDRESS.run_id == wire.run_id_of("request-1", "convert")


@given(st.text(max_size=200) | st.text(alphabet="ABCabc019-_=", max_size=60))
def test_what_is_no_address_is_unknown(segment: str) -> None:
    try:
        address = parse(segment)
    except UnknownIdError:
        return
    assert isinstance(address.run_id, str)


@pytest.mark.parametrize(
    "document",
    [{}, [], None, 3, "x", ["a"] * 5, ["a"] * 7, [1, "b", "c", "d", "e", None], ["a", "b", "c", "d", None, None],
     ["a", "b", "c", "d", "e", 6], [["a"], "b", "c", "d", "e", None], ["a\ud800", "b", "c", "d", "e", None],
     ["a", "b", "c", "d", "e", "\udfff"]],
)  # fmt: skip
def test_only_six_texts_are_an_address(document: object) -> None:
    segment = base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()
    with pytest.raises(UnknownIdError):
        parse(segment)


def test_deep_nesting_is_no_address() -> None:
    with pytest.raises(UnknownIdError):
        parse(base64.urlsafe_b64encode(b"[" * 3000).rstrip(b"=").decode())


def test_a_token_fits_one_address_and_one_key() -> None:
    token = run_token(b"key", ADDRESS)
    assert check_token(b"key", ADDRESS, token)
    assert check_token(b"key", parse(ADDRESS.path_token()), token)
    assert not check_token(b"other", ADDRESS, token)
    for forged in ("", token[:-1], token + "a", token.upper(), "é", "\udcff"):
        assert not check_token(b"key", ADDRESS, forged)


@pytest.mark.parametrize("name", [field.name for field in fields(RunAddress)])
def test_a_run_cannot_say_that_it_is_another_or_was_started_otherwise(name: str) -> None:
    other = replace(ADDRESS, **{name: "another"})
    assert not check_token(b"key", other, run_token(b"key", ADDRESS))


def test_request_id_and_function_cannot_be_shifted_against_each_other() -> None:
    assert RunAddress("ab", "c").run_id != RunAddress("a", "bc").run_id


def test_a_functions_uid_is_its_address_and_token_in_one_segment() -> None:
    url, token = run_url("http://127.0.0.1:8080", ADDRESS), run_token(b"key", ADDRESS)
    uid = function_uid(url, token)
    assert parse_uid(uid) == (ADDRESS, token)
    assert function_uid(url + "/", token) == uid
    assert set(uid) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


@given(st.text(max_size=200) | st.text(alphabet="ABCabc019-_=.", max_size=60))
def test_what_is_no_uid_is_unknown(uid: str) -> None:
    try:
        address, token = parse_uid(uid)
    except UnknownIdError:
        return
    assert isinstance(address.run_id, str)
    assert token
