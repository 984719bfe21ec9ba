"""YAML text as plain JSON values, with the line of every key: strict where YAML is generous.

Pure. Refused with a line number: duplicate keys, keys that are not text (YAML 1.1 reads `on:` as true), custom tags,
merge keys, more values than any sane file has (an alias bomb of 300 bytes has 4·10⁷), and nesting without end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

MAX_VALUES = 20_000
MAX_DEPTH = 40
MAX_DOCUMENTS = 200

Path = tuple[str | int, ...]

_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str")}
_TIMESTAMP_TAG = "tag:yaml.org,2002:timestamp"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_COLLECTION_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


class YamlError(Exception):
    """The text is no YAML that we take; `line` is 1-based where it is known, `path` leads to the place."""

    def __init__(self, message: str, line: int | None = None, path: Path = ()) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.path = path


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One document: its value (None, bool, int, float, str, list, dict only) and the line of each place in it."""

    value: Any
    line: int
    lines: Mapping[Path, int]
    text: str = ""
    """The document as it is written, with the comments around it but without those of its neighbours."""
    first_line: int = 1
    """The line that `text` begins with."""

    def line_of(self, path: Path) -> int:
        """The line of the place, or of the nearest enclosing place that exists."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, self.line)


def read_documents(text: str) -> list[YamlDocument]:
    """Every document of the text that is not empty, in order. Raises `YamlError` for the first thing that is wrong."""
    loader = yaml.CSafeLoader(text)
    documents: list[YamlDocument] = []
    begins: list[int] = []
    lines, behind = text.splitlines(keepends=True), 0
    try:
        while loader.check_node():
            if len(documents) >= MAX_DOCUMENTS:
                raise YamlError(f"more than {MAX_DOCUMENTS} documents in one file")
            node = loader.get_node()
            document = None if node is None else _Reader(loader).read(node)
            if node is not None and document is not None and document.value is not None:
                begins.append(_begin(lines, behind, node.start_mark.line) if documents else 0)
                documents.append(document)
                behind = node.end_mark.line
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        found = lines[mark.line][mark.column : mark.column + 1] if mark and mark.line < len(lines) else ""
        raise YamlError(_problem(error, found), mark.line + 1 if mark else None) from error
    except yaml.YAMLError as error:
        raise YamlError(f"not YAML: {' '.join(str(error).split())}"[:200]) from error
    except RecursionError as error:
        raise YamlError("nested too deeply") from error
    finally:
        loader.dispose()
    return [
        replace(document, text="".join(lines[begin:end]), first_line=begin + 1)
        for document, begin, end in zip(documents, begins, [*begins, len(lines)][1:], strict=True)
    ]


def written(value: Any) -> str:
    """The value as YAML for people to read: keys in their order, text of several lines as blocks, no aliases."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _begin(lines: list[str], behind: int, first: int) -> int:
    """The line of the `---` that a document stands below: between the end of the one before and its first value."""
    marks = (number for number in range(min(first, len(lines) - 1), behind - 1, -1) if lines[number].startswith("---"))
    return next(marks, first)


def _problem(error: yaml.MarkedYAMLError, found: str) -> str:
    """What the library says, and what to do about it; `found` is the character that it stopped at."""
    problem = error.problem or error.context or "not YAML"
    if "tab character" in problem or "\\t" in problem or found == "\t":
        return f"not YAML: {problem}; indent with spaces, not with tabs"
    if found and "cannot start any token" in problem:
        return f"not YAML: a value cannot begin with {found!r}; put it in quotes"
    return f"not YAML: {problem}"


class _Reader:
    """Turns the node tree of one document into plain values; counts what it makes, aliases included."""

    def __init__(self, loader: yaml.CSafeLoader) -> None:
        self._loader = loader
        self._values = 0
        self._lines: dict[Path, int] = {}

    def read(self, node: yaml.Node) -> YamlDocument:
        value = self._value(node, ())
        return YamlDocument(value, node.start_mark.line + 1, self._lines)

    def _value(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self._values += 1
        if self._values > MAX_VALUES:
            # The place in the file is where the value is used: a node that an alias repeats stands somewhere else.
            top = path[:1]
            raise YamlError(
                f"more than {MAX_VALUES} values (aliases count every time they are used)",
                self._lines.get(top, line),
                top,
            )
        if len(path) > MAX_DEPTH:
            raise YamlError(f"nested more than {MAX_DEPTH} levels deep", line, path[:3])
        self._lines.setdefault(path, line)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in _COLLECTION_TAGS:
            raise YamlError(f"tag {_short(node.tag)} is not allowed, only plain values", line, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = self._key(key_node, path), key_node.start_mark.line + 1
            if key in result:
                first = self._lines[(*path, key)]
                raise YamlError(f"the key {key!r} is there twice, first in line {first}", line, (*path, key))
            self._lines[(*path, key)] = line
            result[key] = self._value(value_node, (*path, key))
        return result

    def _key(self, node: yaml.Node, path: Path) -> str:
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.ScalarNode):
            raise YamlError("a key must be text, not a list or mapping", line, path)
        if node.tag == _MERGE_TAG:
            raise YamlError("merge keys (<<) are not supported; write the values out", line, path)
        value = self._scalar(node, path)
        if not isinstance(value, str):
            raise YamlError(f"the key {node.value!r} is read as {_word(value)}; put it in quotes", line, path)
        return value

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        if node.tag == _TIMESTAMP_TAG:
            return node.value
        if node.tag not in _PLAIN_TAGS:
            raise YamlError(f"tag {_short(node.tag)} is not allowed, only plain values", node.start_mark.line + 1, path)
        try:
            return self._loader.construct_object(node)
        except ValueError as error:
            raise YamlError(f"{node.value[:40]!r} cannot be read: {error}", node.start_mark.line + 1, path) from error


def _short(tag: str) -> str:
    return repr(tag.replace("tag:yaml.org,2002:", "!!"))[:60]


def _word(value: Any) -> str:
    if value is None:
        return "null"
    return {bool: "true/false", int: "a number", float: "a number"}.get(type(value), "something else")


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines, such as code, as a block. The same value twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
