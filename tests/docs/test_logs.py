"""docs/logs.md against the code: every field and component of a log line is told, and nothing that no line has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.docs.transcript import ROOT

PAGE = (ROOT / "docs" / "logs.md").read_text()
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
FACTS = {"ids", "trace_facts", "request_facts", "in_trace", "run_facts"}
"""The functions whose dictionaries become fields of a line, as `**`."""
EVERY_LINE = {"timestamp", "level", "event", "component"}
BY_ITSELF = {"exception"}
"""What the logger makes of `exc_info`."""
ANY_TEXT = {"invoker/logs.py", "invoker/cli/program.py"}
"""Where lines of libraries come by; and "controller ready", "gateway ready", whose fields are those of `ready(…)`."""
SOURCES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for folder in ("trigger", "invoker")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def log_calls(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls that write a line or bind fields to one."""
    loggers = {
        ast.unparse(target)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and is_logger(node.value)
        for target in node.targets
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {*LEVELS, "bind"}:
            of = node.func.value
            if ast.unparse(of) in loggers or (isinstance(of, ast.Call) and is_logger(of)):
                yield node


def is_logger(call: ast.Call) -> bool:
    """`structlog.get_logger(…)`, or `.bind(…)` of what is named as loggers are."""
    name = ast.unparse(call.func)
    return name.endswith("get_logger") or re.fullmatch(r"(?:_?log|line|_?audit|self\._log)\.bind", name) is not None


def written() -> set[str]:
    """Every field of every line."""
    found = set()
    for tree in SOURCES.values():
        for call in log_calls(tree):
            found |= {one.arg for one in call.keywords if one.arg is not None}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name in FACTS:
                found |= set(keys_in(node))
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "ready":
                found |= {one.arg for one in node.keywords if one.arg is not None}
    return (found - {"exc_info"}) | BY_ITSELF


def keys_in(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            yield from (one.value for one in node.keys if isinstance(one, ast.Constant) and isinstance(one.value, str))
        elif (
            isinstance(node, ast.Subscript)
            and isinstance(node.slice, ast.Constant)
            and ast.unparse(node.value) == "facts"
        ):
            yield str(node.slice.value)


def told(section: str) -> set[str]:
    """The fields in the first column of the table after these words."""
    table = PAGE.split(section)[1].lstrip().split("\n\n")[0]
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_every_field_of_a_line_is_told_and_no_other() -> None:
    assert told("On every line:") == EVERY_LINE
    found = told("where they are known:")
    assert written() - found == set(), "written and not told"
    assert found - written() == set(), "told and never written"


def test_every_component_is_told() -> None:
    (row,) = re.findall(r"^\| `component` \| (.*?) \|$", PAGE, re.MULTILINE)
    components = set()
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("get_logger", "ConnectionLog")):
                given = [*node.args, *(one.value for one in node.keywords if one.arg == "component")]
                components |= {str(one.value) for one in given if isinstance(one, ast.Constant)}
    assert set(re.findall(r"`([a-z-]+)`", row)) == components


def test_the_event_of_a_line_is_a_fixed_phrase() -> None:
    made_up = [
        f"{file}:{call.lineno}"
        for file in set(SOURCES) - ANY_TEXT
        for call in log_calls(SOURCES[file])
        if isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS
        and not isinstance(call.args[1 if call.func.attr == "log" else 0], ast.Constant)
    ]  # fmt: skip
    assert made_up == []


def test_calls_are_found() -> None:
    text = (
        "log = structlog.get_logger(component='x')\nline = log.bind(a=1)\nline.info('b', c=2)\nother.info('d', e=3)\n"
    )
    assert [ast.unparse(call) for call in log_calls(ast.parse(text))] == ["log.bind(a=1)", "line.info('b', c=2)"]


def test_what_the_desk_reads_in_a_line_is_a_field() -> None:
    read = set(re.findall(r"found\.get\(['\"](\w+)['\"]", ast.unparse(SOURCES["invoker/cli/dev_screen.py"])))
    assert read > {"event"}
    assert read <= EVERY_LINE | written()
