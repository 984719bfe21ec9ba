"""CloudEvents read from HTTP: what an event becomes, byte for byte, and what is named in a refusal."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker.errors import ContentRefusedError, InputRefusedError
from invoker.gateway.cloudevents import CloudEvent, mode_of, read_batch, read_binary, read_structured

GOOD = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "orders.created"}


def structured(**members: Any) -> CloudEvent:
    return read_structured(json.dumps(GOOD | members).encode())


@pytest.mark.parametrize(
    ("headers", "mode"),
    [
        ({"content-type": "application/cloudevents+json; charset=utf-8"}, "structured"),
        ({"content-type": "Application/CloudEvents-Batch+JSON"}, "batch"),
        ({"content-type": "text/plain", "ce-specversion": "1.0"}, "binary"),
        ({"content-type": "application/json"}, None),
        ({}, None),
    ],
)
def test_how_a_call_carries_events(headers: dict[str, str], mode: str | None) -> None:
    assert mode_of(headers) == mode


def test_other_formats_are_refused() -> None:
    with pytest.raises(ContentRefusedError):
        mode_of({"content-type": "application/cloudevents+avro"})


def test_data_keeps_the_bytes_it_came_with() -> None:
    odd = b'{ "n": 1.10, "big": 123456789012345678901234567890, "u": "\\u00fc", "twice":1, "twice":2 }'
    body = json.dumps(GOOD).encode()[:-1] + b' , "data" :  ' + odd + b"}"
    event = read_structured(body)
    assert event.data == odd
    assert event.content_type == "application/json"


@pytest.mark.parametrize(
    ("members", "data", "content_type"),
    [
        ({}, b"", None),
        ({"data": None}, b"", None),
        ({"data": "text", "datacontenttype": "text/plain"}, b"text", "text/plain"),
        ({"data": "text"}, b'"text"', "application/json"),
        ({"data": "t", "datacontenttype": "application/x+json"}, b'"t"', "application/x+json"),
        ({"data": {"a": 1}, "datacontenttype": "text/xml"}, b'{"a": 1}', "text/xml"),
        ({"data_base64": "AP8=", "datacontenttype": "image/png"}, b"\x00\xff", "image/png"),
    ],
)
def test_what_data_becomes(members: dict[str, Any], data: bytes, content_type: str | None) -> None:
    event = structured(**members)
    assert (event.data, event.content_type) == (data, content_type)


def test_attributes_become_headers_and_source_and_id_name_the_event() -> None:
    event = structured(subject="ü", time="2026-11-21T10:00:00Z", count=7, urgent=True, nothing=None)
    assert event.headers() == {
        "ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "orders.created", "ce-subject": "ü",
        "ce-time": "2026-11-21T10:00:00Z", "ce-count": "7", "ce-urgent": "true",
    }  # fmt: skip
    assert event.key == "/shop 1"


@pytest.mark.parametrize(
    ("members", "attribute"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": 1.0}, "specversion"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"id": None}, "id"),
        ({"source": ""}, "source"),
        ({"source": "with blank"}, "source"),
        ({"type": ""}, "type"),
        ({"type": ["a"]}, "type"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-11-21T10:00:00"}, "time"),
        ({"subject": ""}, "subject"),
        ({"subject": "a\r\nb"}, "subject"),
        ({"subject": "\ud800"}, "subject"),
        ({"dataschema": "no-uri"}, "dataschema"),
        ({"datacontenttype": "text"}, "datacontenttype"),
        ({"datacontenttype": "text/plain\r\nX: y"}, "datacontenttype"),
        ({"extension": 1.5}, "extension"),
        ({"extension": {"a": 1}}, "extension"),
        ({"BAD": "x"}, "BAD"),
        ({"data": 1, "data_base64": "AA=="}, "data_base64"),
        ({"data_base64": "!!"}, "data_base64"),
        ({"data_base64": 3}, "data_base64"),
        ({"id": "x" * 2_000}, "id"),
    ],
)
def test_a_refusal_names_the_attribute(members: dict[str, Any], attribute: str) -> None:
    with pytest.raises(InputRefusedError) as refused:
        structured(**members)
    assert refused.value.fields["errors"][0]["pointer"] == f"/{attribute}"
    assert len(refused.value.message) < 300


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
def test_a_missing_attribute_is_named(name: str) -> None:
    with pytest.raises(InputRefusedError, match=f"{name} is missing"):
        read_structured(json.dumps({key: value for key, value in GOOD.items() if key != name}).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"{} x", b'{"id": NaN}', b"\xff\xfe", b'{"a" 1}', b"{1: 2}", b'{"id":1,}',
        b"\xef\xbb\xbf{}", b'{"id":"1","id":"2"}', b'{"data":' + b"[" * 100_000 + b"}",
        b'{"data":' + b'{"a":' * 100_000 + b"}", b'{"id":' + b"9" * 10_000 + b"}", b'{"x":Infinity}',
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InputRefusedError):
        read_structured(body)


def test_binary_attributes_are_percent_decoded_and_the_body_is_the_data() -> None:
    headers = [(f"ce-{name}", value) for name, value in GOOD.items()]
    event = read_binary([*headers, ("ce-subject", '"a%20%C3%BC"'), ("content-type", "text/csv"), ("host", "x")])
    assert (event.attributes["subject"], event.content_type, event.data) == ("a ü", "text/csv", None)
    for bad in (("ce-subject", "%FF"), ("ce-subject", "%0A"), ("ce-id", "2"), ("ce-bad-name", "x")):
        with pytest.raises(InputRefusedError):
            read_binary([*headers, bad])


def test_a_bad_event_of_a_batch_leaves_the_others_alone() -> None:
    events = [GOOD | {"id": "a"}, {"id": "b"}, 7, GOOD | {"id": "c", "data": [1, 2]}]
    found = read_batch(json.dumps(events).encode())
    assert [isinstance(one, CloudEvent) for one in found] == [True, False, False, True]
    last = found[3]
    assert isinstance(last, CloudEvent)
    assert last.data == b"[1, 2]"
    assert read_batch(b" [ ] ") == []


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"[1,]", b"[1 2]", b"[] x", b"[" * 100_000])
def test_what_is_no_batch_is_refused(body: bytes) -> None:
    with pytest.raises(InputRefusedError):
        read_batch(body)


def test_a_batch_has_a_limit() -> None:
    with pytest.raises(InputRefusedError, match="at most 1000"):
        read_batch(json.dumps([GOOD] * 1_001).encode())


@given(st.binary(max_size=200))
def test_any_bytes_as_base64_come_back(data: bytes) -> None:
    assert structured(data_base64=base64.b64encode(data).decode()).data == data


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_whatever_comes_is_an_event_or_a_refusal(body: bytes) -> None:
    refused: list[str] = []
    for read in (read_structured, read_batch):
        try:
            read(body)
        except InputRefusedError as error:
            refused.append(error.message)
    assert all(message.isprintable() for message in refused)
