"""A page as its reader has it without a browser: elements, links, forms to send. On the standard library's parser.

page = read_page(text)
page.one("main").text                     # what is read there, in one line
page.all("tr", within="table")            # every row of every table
page.one("a", id="next")["href"]
page.form("Cancel").sent(ids=["a", "b"])  # a form's body, with its hidden fields
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlencode

VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])
_SPACE = re.compile(r"\s+")


@dataclass(eq=False)
class Element:
    """An element of a page."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        """An attribute that must be there."""
        return self.attributes[name]

    def get(self, name: str) -> str | None:
        return self.attributes.get(name)

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    @property
    def raw_text(self) -> str:
        """Every character in it, as it stands; script and style are no text."""
        return "".join(one if isinstance(one, str) else one.raw_text for one in self.children if _is_text(one))

    @property
    def text(self) -> str:
        """What is read there, in one line."""
        return _SPACE.sub(" ", self.raw_text).strip()

    def walk(self) -> Iterator[Element]:
        """Every element in it, in the order of the page; itself not."""
        for one in self.children:
            if isinstance(one, Element):
                yield one
                yield from one.walk()

    def all(
        self,
        tag: str | None = None,
        *,
        within: str | None = None,
        class_: str | None = None,
        text: str | None = None,
        **attributes: str,
    ) -> list[Element]:
        """Every element of that tag with these attributes (`_` stands for `-`), class, and text somewhere in it."""
        if within is not None:
            found = [
                one for outer in self.all(within) for one in outer.all(tag, class_=class_, text=text, **attributes)
            ]
            return list({id(one): one for one in found}.values())
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        return [
            one
            for one in self.walk()
            if (tag is None or one.tag == tag)
            and (class_ is None or class_ in one.classes)
            and (text is None or text in one.text)
            and all(one.get(name) == value for name, value in wanted.items())
        ]  # fmt: skip

    def one(self, tag: str | None = None, **wanted: str) -> Element:
        """The only such element; fails the test when there is none, or more than one."""
        found = self.all(tag, **wanted)
        assert len(found) == 1, f"{len(found)} elements {tag or ''} {wanted} in: {self.text[:2000]}"
        return found[0]

    def has(self, tag: str | None = None, **wanted: str) -> bool:
        return bool(self.all(tag, **wanted))

    @property
    def links(self) -> list[tuple[str, str]]:
        """Text and address of every link."""
        return [(one.text, one["href"]) for one in self.all("a") if "href" in one.attributes]

    def link(self, text: str) -> str:
        """The address of the first link with that text."""
        found = [address for words, address in self.links if words == text]
        assert found, f"no link {text!r}; there are {self.links}"
        return found[0]

    @property
    def forms(self) -> list[PageForm]:
        return [PageForm.of(one, self) for one in self.all("form")]

    def form(self, button: str | None = None, *, action: str | None = None) -> PageForm:
        """The form with that button, or that goes there. The only one when neither is given."""
        found = [
            one for one in self.forms
            if (button is None or button in one.buttons) and (action is None or one.action == action)
        ]  # fmt: skip
        told = [(one.action, one.buttons) for one in self.forms]
        assert len(found) == 1, f"{len(found)} forms with {button or action!r}; there are {told} in: {self.text[:1500]}"
        return found[0]

    @property
    def rows(self) -> list[list[str]]:
        """The cells of every table's body, as text."""
        bodies = [row for row in self.all("tr", within="tbody")]
        return [[cell.text for cell in row.children if isinstance(cell, Element)] for row in bodies]


@dataclass(frozen=True)
class PageForm:
    """A form: where it goes, and what it sends as it was drawn (the first button's own field not)."""

    method: str
    action: str
    fields: tuple[tuple[str, str], ...]
    buttons: tuple[str, ...]
    element: Element

    @classmethod
    def of(cls, element: Element, page: Element) -> PageForm:
        inside = list(element.walk())
        name = element.get("id")
        outside = [one for one in page.walk() if name and one.get("form") == name and one not in inside]
        parts = [*inside, *outside]
        buttons = tuple(one.text for one in parts if one.tag == "button" and one.get("type") != "button")
        pairs = tuple(pair for one in parts for pair in _pairs_of(one))
        return cls((element.get("method") or "get").lower(), element.get("action") or "", pairs, buttons, element)

    def value(self, name: str) -> str | None:
        return dict(self.fields).get(name)

    def sent(self, **changed: str | Sequence[str] | None) -> str:
        """The form's body with these fields changed: a list is sent as so many, None not at all."""
        kept = [(name, value) for name, value in self.fields if name not in changed]
        for name, value in changed.items():
            if value is not None:
                kept += [(name, one) for one in ([value] if isinstance(value, str) else value)]
        return urlencode(kept)


def read_page(text: str) -> Element:
    """The page as one element `#document`."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader.root


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("#document", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(made)
        if tag not in VOID:
            self._open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        depth = next((at for at in range(len(self._open) - 1, 0, -1) if self._open[at].tag == tag), None)
        if depth is not None:
            del self._open[depth:]

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def _is_text(one: Element | str) -> bool:
    return isinstance(one, str) or one.tag not in ("script", "style")


def _pairs_of(one: Element) -> list[tuple[str, str]]:
    name = one.get("name")
    if name is None or "disabled" in one.attributes:
        return []
    if one.tag == "textarea":
        return [(name, one.raw_text.removeprefix("\n"))]
    if one.tag == "select":
        options = one.all("option")
        chosen = [option for option in options if "selected" in option.attributes] or options[:1]
        return [(name, option.attributes.get("value", option.text)) for option in chosen]
    if one.tag != "input" or one.get("type") in ("submit", "button", "image", "reset"):
        return []
    if one.get("type") in ("checkbox", "radio"):
        return [(name, one.get("value") or "on")] if "checked" in one.attributes else []
    return [(name, one.get("value") or "")]
