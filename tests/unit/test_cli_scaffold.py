"""`functions new` and `functions check`: what is written is accepted, complete, and never overwrites."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from invoker import wire
from invoker.cli.checking import check_path
from invoker.cli.scaffold import EVENT, files_of, write_function
from invoker.errors import CatalogError, InputRefusedError, TopicError
from trigger.function_fields import FunctionFields, MetadataFields, SpecFields

ALTERNATIVES = ("code", "image", "command", "args", "job")
"""Fields that exclude what the new function uses."""


def test_a_new_function_is_accepted(tmp_path: Path) -> None:
    write_function("hello", tmp_path / "functions")
    assert check_path(tmp_path / "functions").functions == ("hello",)
    assert check_path(tmp_path / "functions" / "hello").functions == ("hello",)
    assert check_path(tmp_path / "functions" / "hello" / "function.yaml").problems == ()


def test_every_field_is_there_and_explained() -> None:
    text = files_of("hello", Path("functions/hello"))["function.yaml"]
    for model in (FunctionFields, MetadataFields, SpecFields):
        for name, field in model.model_fields.items():
            key = field.alias or name
            assert re.search(rf"^\s*(- |# )*{key}:", text, re.MULTILINE), key
    unexplained = [
        line for line in text.splitlines()
        if re.match(r"\s*# \w+:", line) and "#" not in line.split("# ", 1)[1]
    ]  # fmt: skip
    assert unexplained == []


def test_the_optional_fields_are_right_too(tmp_path: Path) -> None:
    """Whoever takes the sign off a line gets a function that is accepted."""
    write_function("hello", tmp_path)
    file = tmp_path / "hello" / "function.yaml"
    text = re.sub(r"^(\s*)# (\w+: )", r"\1\2", file.read_text(), flags=re.MULTILINE)
    kept = [line for line in text.splitlines() if not line.strip().startswith(tuple(f"{one}:" for one in ALTERNATIVES))]
    assert len(kept) > len(text.splitlines()) - 8
    file.write_text("\n".join(kept))
    assert check_path(tmp_path).problems == ()


def test_a_new_program_is_accepted_and_every_field_is_there_too(tmp_path: Path) -> None:
    files = write_function("hello", tmp_path, is_program=True)
    assert sorted(files) == ["event.json", "function.yaml", "run.sh"]
    file = tmp_path / "hello" / "function.yaml"
    assert check_path(tmp_path).functions == ("hello",)
    spec = yaml.safe_load(file.read_text())["spec"]
    assert (spec["command"], spec["input"], spec["output"]) == (["./run.sh"], {"as": "file"}, {"from": "stdout"})
    assert not {"runtime", "handler"} & set(spec)
    keys = [re.findall(r"^\s*(?:- |# )*(\w+):", text, re.MULTILINE) for text in (
        file.read_text(), files_of("hello", Path("x"))["function.yaml"],
    )]  # fmt: skip
    assert sorted(keys[0]) == sorted(keys[1])


def test_the_program_runs(tmp_path: Path) -> None:
    write_function("hello", tmp_path, is_program=True)
    told = [
        subprocess.run(
            ["./run.sh"], cwd=tmp_path / "hello", env={"INVOKER_INPUT_FILE": str(tmp_path / "hello" / name)},
            capture_output=True, text=True, check=True,
        ).stdout
        for name in ("event.json", "run.sh")
    ]  # fmt: skip
    assert told == ["Hello, Ada!\n", "Hello, world!\n"]


def test_the_handler_runs(tmp_path: Path) -> None:
    write_function("hello", tmp_path)
    program = f"import main; print(main.handle({{'data': {EVENT!r}}}, None), main.handle({{'data': b''}}, None))"
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path / "hello", capture_output=True, text=True, check=True
    )
    assert told.stdout == "Hello, Ada! Hello, world!\n"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_function("hello", tmp_path)
    (tmp_path / "hello" / "main.py").write_text("mine")
    with pytest.raises(InputRefusedError, match="exists already; nothing was written"):
        write_function("hello", tmp_path)
    assert (tmp_path / "hello" / "main.py").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputRefusedError, match="cannot write"):
        write_function("hello", tmp_path / "file" / "functions")
    with pytest.raises(InputRefusedError, match=r"file is no folder$"):
        write_function("hello", tmp_path / "file")


@given(st.text(max_size=70))
@example("Invoker")
def test_a_name_is_legal_or_refused_with_one_that_is(name: str) -> None:
    try:
        files = files_of(name, Path("x"))
    except (TopicError, InputRefusedError) as error:
        if error.fields.get("try_command") is not None:
            files_of(error.fields["try_command"].split()[-1], Path("x"))
        return
    assert wire.check_function_name(name) == name
    assert f"name: {name} " in files["function.yaml"]


def test_the_instance_s_own_name_is_no_function(tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError, match="Invoker's own"):
        write_function("invoker", tmp_path)


def test_problems_name_file_line_and_field(tmp_path: Path) -> None:
    write_function("good", tmp_path)
    write_function("bad", tmp_path)
    file = tmp_path / "bad" / "function.yaml"
    file.write_text(file.read_text().replace("backoffLimit: 0 ", "backofLimit: 0"))
    checked = check_path(tmp_path)
    line = 1 + file.read_text().splitlines().index(next(x for x in file.read_text().splitlines() if "backofLimit" in x))
    assert checked.functions == ("good",)
    (problem,) = checked.problems
    assert problem.message.startswith(f"{file}:{line}: spec.backofLimit: unknown key")
    assert (problem.file, problem.line, problem.field) == (str(file), line, "spec.backofLimit")
    assert checked.summary == "✗ 1 problem, 1 function usable"


def test_what_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="does not exist"):
        check_path(tmp_path / "nowhere")
    with pytest.raises(CatalogError, match="holds no function file"):
        check_path(tmp_path)
