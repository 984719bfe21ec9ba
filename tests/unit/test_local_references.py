"""What variables refer to, as files in a folder; what no folder can hold is refused before the start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from invoker.errors import StartRefusedError
from trigger.local_engine.references import MAX_VALUE_BYTES, UnreadableReferenceError, check_readable, values_of
from trigger.plan import Code, RunPlan


def secret(name: str, key: str, **more: Any) -> dict[str, Any]:
    return {"secretKeyRef": {"name": name, "key": key, **more}}


def plan(**sources: dict[str, Any]) -> RunPlan:
    env = [{"name": name, "valueFrom": source} for name, source in sources.items()]
    return RunPlan(
        run_id="run", request_id="request", function="work", topic="topic", spec_hash="0", catalog="0",
        code=Code(command=("true",)), env={}, pod={"env": [*env, {"name": "PLAIN"}]},
    )  # fmt: skip


def put(folder: Path, name: str, key: str, data: bytes) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / key).write_bytes(data)


def test_secrets_and_config_maps_are_files(tmp_path: Path) -> None:
    put(tmp_path, "db", "password", "pä$ß word\n".encode())
    put(tmp_path, "settings", "level", b"debug\n\n")
    put(tmp_path, "settings", "empty", b"")
    put(tmp_path, "settings", "windows", b"C:\\\r\n")
    values = values_of(
        plan(
            PASSWORD=secret("db", "password"),
            LEVEL={"configMapKeyRef": {"name": "settings", "key": "level"}},
            EMPTY={"configMapKeyRef": {"name": "settings", "key": "empty"}},
            DRIVE={"configMapKeyRef": {"name": "settings", "key": "windows"}},
            NONE=secret("db", "nothing", optional=True),
            NOWHERE=secret("nowhere", "nothing", optional=True),
        ),
        tmp_path,
    )
    assert values == {"PASSWORD": "pä$ß word", "LEVEL": "debug\n", "EMPTY": "", "DRIVE": "C:\\"}
    assert values_of(plan(), tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "key", "words"),
    [
        ("db", "none", "key 'none' of the Secret 'db' is not there: no file {}/db/none"),
        ("none", "password", "key 'password' of the Secret 'none' is not there: no file {}/none/password"),
        ("db/password", "x", "key 'x' of the Secret 'db/password' is no name of a file"),
        ("..", "password", "key 'password' of the Secret '..' is no name of a file"),
        ("db", "large", "key 'large' of the Secret 'db' is larger than a variable can be (131071 bytes): {}/db/large"),
        ("db", "binary", "key 'binary' of the Secret 'db' is no text that a variable can hold: {}/db/binary"),
        ("db", "zero", "key 'zero' of the Secret 'db' is no text that a variable can hold: {}/db/zero"),
        ("db", "folder", "key 'folder' of the Secret 'db' cannot be read: Is a directory (EISDIR), {}/db/folder"),
    ],
)
def test_what_cannot_be_read_is_named_and_never_told(tmp_path: Path, name: str, key: str, words: str) -> None:
    put(tmp_path, "db", "password", b"s3cret")
    put(tmp_path, "db", "large", b"s3cret" + b"x" * MAX_VALUE_BYTES)
    put(tmp_path, "db", "binary", b"s3cret\xff")
    put(tmp_path, "db", "zero", b"s3cret\0")
    (tmp_path / "db" / "folder").mkdir()
    with pytest.raises(UnreadableReferenceError, match=f"^{re.escape(words.format(tmp_path))}$"):
        values_of(plan(PASSWORD=secret(name, key)), tmp_path)


def test_without_a_folder_references_are_refused_with_what_to_do() -> None:
    with pytest.raises(StartRefusedError, match=r"cannot read: A, B; give them a value, set INVOKER_SECRETS_DIR"):
        check_readable(plan(A=secret("db", "a"), B=secret("db", "b")), None)
    check_readable(plan(), None)


def test_what_only_pods_have_is_refused_with_a_folder_too(tmp_path: Path) -> None:
    field = {"fieldRef": {"fieldPath": "status.podIP"}}
    with pytest.raises(StartRefusedError, match=r"what only pods have: IP; give it a value, or use the kubernetes"):
        check_readable(plan(IP=field, A=secret("db", "a")), tmp_path)
    check_readable(plan(A=secret("db", "a")), tmp_path)
