"""The sample `convert`, called in this process or in one of its own, and what it published."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from invoker.schema import Schema
from tests.sample_functions import SAMPLES, Published, RecordingContext, event, load

convert = load("convert")
SUMMARY = Schema(json.loads((SAMPLES / "convert" / "summary.schema.json").read_text()))


def run(data: Any, context: RecordingContext, kind: str = "csv", name: str = "a", **params: Any) -> dict[str, Any]:
    """The summary, which fits its schema, after one publication."""
    summary: dict[str, Any] = convert.handle(
        event(data, topic=f"uncompressed.{kind}", headers={"File-Name": quote(name)}, params=params), context
    )
    assert SUMMARY.problems(json.loads(json.dumps(summary))) == []
    assert len(context.published) == 1
    return summary


def rows_of(context: RecordingContext) -> list[dict[str, Any]]:
    return [json.loads(line) for line in published(context).data.decode().split("\n")[:-1]]


def published(context: RecordingContext) -> Published:
    (one,) = context.published
    return one


def converted(data: Any, context: RecordingContext, kind: str = "csv", **params: Any) -> list[dict[str, Any]]:
    run(data, context, kind, **params)
    return rows_of(context)


def refused(data: Any, context: RecordingContext, kind: str = "csv", **params: Any) -> str:
    with pytest.raises(convert.ConvertError) as caught:
        run(data, context, kind, "bad", **params)
    assert context.published == []
    return str(caught.value)


def types(summary: dict[str, Any]) -> dict[str, str]:
    return {column["name"]: column["type"] for column in summary["columns"]}


def in_a_process(
    tmp_path: Path, data: bytes, params: dict[str, Any], *options: str
) -> subprocess.CompletedProcess[str]:
    (tmp_path / "input").write_bytes(data)
    (tmp_path / "work").mkdir()
    program = f"""
        import sys
        sys.path.insert(0, {str(SAMPLES / "convert")!r})
        import main

        class Context:
            workdir = {str(tmp_path / "work")!r}
            def publish(self, topic, data, content_type=None, headers=None): pass
            def progress(self, percent, text): pass

        event = {{"topic": "t", "headers": {{}}, "params": {params!r}, "data-file": {str(tmp_path / "input")!r}}}
        print(main.handle(event, Context())["rows"])
        print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1000)
    """
    command = [sys.executable, *options, "-c", textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True)
