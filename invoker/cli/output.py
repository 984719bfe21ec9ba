"""`-o`: the forms in which a command gives its data on standard output, equal for every command.

`json` is one document, `jsonl` one line per item, `yaml` the same document as YAML, `name` one id or name per line.
The keys are those of the stored documents, so a script reads the same names here, over NATS and over HTTP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer


class Form(StrEnum):
    """How data is written: for people (`table`, `wide`) or for programs."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    JSONL = "jsonl"
    YAML = "yaml"
    NAME = "name"

    @property
    def for_people(self) -> bool:
        return self in (Form.TABLE, Form.WIDE)


FormOption = Annotated[
    Form,
    typer.Option("-o", "--output", metavar="FORM", help="table, wide, json, jsonl, yaml or name."),
]

Item = Mapping[str, Any]


def rendered_item(item: Item, form: Form, name: str) -> str:
    """One document in a form for programs; `name` is the key that `-o name` prints."""
    if form is Form.NAME:
        return f"{item[name]}\n"
    if form is Form.JSONL:
        return _line(item)
    if form is Form.YAML:
        return _yaml(item)
    return json.dumps(item, indent=2, ensure_ascii=False, default=str) + "\n"


def rendered_items(items: Iterable[Item], form: Form, name: str) -> str:
    """A list in a form for programs: an array as JSON and YAML, line by line otherwise."""
    listed = list(items)
    if form is Form.NAME:
        return "".join(f"{item[name]}\n" for item in listed)
    if form is Form.JSONL:
        return "".join(_line(item) for item in listed)
    if form is Form.YAML:
        return _yaml(listed)
    return json.dumps(listed, indent=2, ensure_ascii=False, default=str) + "\n"


def _line(item: Item) -> str:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":"), default=str) + "\n"


def _yaml(document: object) -> str:
    import yaml

    plain = json.loads(json.dumps(document, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def manifest_documents(objects: Iterable[Item]) -> str:
    """Kubernetes objects as YAML documents that every reader understands alike.

    All texts but plain words stand in quotes: readers disagree about what `1e3`, `0o7`, `y` or `12:30` are without.
    """
    import yaml

    class Quoting(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    def quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = None if _is_plain_word(text) else "|" if "\n" in text.rstrip("\n") else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Quoting.add_representer(str, quoted)
    written = (
        yaml.dump(json.loads(json.dumps(one)), Dumper=Quoting, sort_keys=False, allow_unicode=False, width=2**31)
        for one in objects
    )
    return "---\n".join(written)


def _is_plain_word(text: str) -> bool:
    said_otherwise = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", text) is not None and text.lower() not in said_otherwise
