"""JSON without the import of `json`, which costs 7 ms of a function's start (it loads `re` and `enum`).

Uses the C scanner and encoder that `json` itself uses; where an interpreter has none, or something is wrong with the
text, `json` is loaded after all and gives the answer or the error.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_WHITESPACE = " \t\n\r"


def loads(data: bytes | str) -> Any:
    """The value of JSON text in UTF-8. Raises `ValueError` (also for NaN, Infinity and too deep nesting)."""
    try:
        if isinstance(data, str) or not data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
            return _scan(data if isinstance(data, str) else str(data, "utf-8"))
    except (StopIteration, ValueError, ImportError, TypeError, SystemError):
        pass  # the slow way knows what is wrong, and where; 3.11 has no error to raise while `json` is not loaded
    except RecursionError:
        raise ValueError("is JSON nested too deeply") from None
    return _loads_slowly(data)


def dumps(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """JSON text of the value, compact, not limited to ASCII. Raises `TypeError` or `ValueError` naming what cannot be
    encoded; NaN and Infinity cannot."""
    try:
        from _json import encode_basestring, make_encoder
    except ImportError:
        return _dumps_slowly(value, default)
    if isinstance(value, str):
        return str(encode_basestring(value))
    encode = make_encoder({}, default or _refuse, encode_basestring, None, ":", ",", False, False, False)
    return "".join(encode(value, 0))


class _ScannerSettings:
    """What the C scanner asks of its `JSONDecoder`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012 -- read by the C scanner, never shared between threads here

    @staticmethod
    def parse_constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON number")


def _scan(text: str) -> Any:
    from _json import make_scanner

    stripped = text.strip(_WHITESPACE)
    value, end = make_scanner(_ScannerSettings)(stripped, 0)  # type: ignore[arg-type]  # typeshed wants the whole decoder
    if end != len(stripped):
        raise ValueError("something follows the value")
    return value


def _loads_slowly(data: bytes | str) -> Any:
    import json

    try:
        return json.loads(data, parse_constant=_ScannerSettings.parse_constant)
    except RecursionError:
        raise ValueError("is JSON nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None


def _dumps_slowly(value: Any, default: Callable[[Any], Any] | None) -> str:
    import json

    return json.dumps(value, default=default, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _refuse(value: Any) -> Any:
    raise TypeError(f"a value of type {type(value).__name__} has no form in JSON")
