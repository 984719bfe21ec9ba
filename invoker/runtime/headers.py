"""Text and headers as values of HTTP headers, the same on both sides of the run API.

Pure. NATS carries UTF-8, HTTP headers carry printable ASCII: text is percent-encoded where it is neither, a set of
headers is base64url of a JSON object. An ordinary topic or name is its own encoding.
"""

from __future__ import annotations

import binascii

from . import lean_json

_PLAIN = frozenset(range(0x21, 0x7F)) - {0x25}
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")


def encode_text(text: str) -> str:
    """The text as a header value: UTF-8, percent-encoded outside of printable ASCII, blanks and `%` too."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def decode_text(value: str) -> str:
    """The text behind `encode_text`. A `%` that begins no code stands for itself; `ValueError` when it is no UTF-8."""
    if "%" not in value:
        return value
    first, *rest = value.encode("latin-1", "replace").split(b"%")
    return (first + b"".join(_decoded(part) for part in rest)).decode()


def encode_headers(headers: dict[str, str]) -> str:
    """The headers as one header value; empty for none."""
    if not headers:
        return ""
    data = lean_json.dumps(headers).encode("utf-8", "surrogatepass")
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=").decode()


def decode_headers(value: str | None) -> dict[str, str]:
    """The headers behind `encode_headers`. Raises `ValueError` when it holds anything but text by name."""
    if not value:
        return {}
    data = value.encode("ascii").translate(_FROM_URL)
    headers = lean_json.loads(binascii.a2b_base64(data + b"=" * (-len(data) % 4)))
    if not isinstance(headers, dict) or not all(isinstance(text, str) for text in headers.values()):
        raise ValueError("is not a JSON object of texts")
    return headers


def _decoded(part: bytes) -> bytes:
    if len(part) < 2:
        return b"%" + part
    try:
        return binascii.unhexlify(part[:2]) + part[2:]
    except ValueError:
        return b"%" + part
