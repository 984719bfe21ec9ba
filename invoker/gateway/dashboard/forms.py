"""Forms of the dashboard: how they are read, and the key that makes sending one twice the same as once."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request

from invoker import wire
from invoker.errors import ContentRefusedError, InputRefusedError
from invoker.gateway.polling import small_body
from invoker.requesting import new_request_id

FORM = "application/x-www-form-urlencoded"
MAX_FORM_BYTES = 8 * 1024 * 1024
MAX_FIELDS = 2_000
ONCE = "once"
"""The field with the form's key, made when its page was drawn."""


class Form(dict[str, str]):
    """The fields of a form that was sent: the last value of each name, `all` of one that may come several times."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def all(self, name: str) -> list[str]:
        """Every value of that name, in order."""
        return [value for key, value in self._pairs if key == name]

    @property
    def once(self) -> str:
        """The form's key: sent again, by a double click or after a lost answer, it makes nothing new.

        Raises `InputRefusedError` without one.
        """
        key = self.get(ONCE, "")
        if not (key.isalnum() and len(key) <= 64):
            raise InputRefusedError(
                "the form has no key of its own", hint="open the page again, and send it from there"
            )
        return key


async def read_form(request: Request) -> Form:
    """The fields that a page sent. Raises `ContentRefusedError` for anything but a form, `InputRefusedError` for one
    that is too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise ContentRefusedError(f"a form is wanted here ({FORM})")
    data = await small_body(request, MAX_FORM_BYTES)
    try:
        text = data.decode("utf-8")
        return Form(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"))
    except ValueError as error:
        raise InputRefusedError("the form cannot be read") from error


def new_key() -> str:
    """A key for a form that is drawn now: what it makes has ids that sort by that time."""
    return new_request_id()


def text_bytes(text: str) -> bytes:
    """A text that was edited in a page, with line ends of one kind: browsers send their own."""
    return text.replace("\r\n", "\n").replace("\r", "\n").encode()


def text_digest(text: str) -> str:
    """Tells a text that comes back as it was drawn from one that was changed."""
    return wire.sha256_hex(text_bytes(text))
