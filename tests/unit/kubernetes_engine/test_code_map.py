"""Code as a ConfigMap: named by its content, immutable, byte for byte what it was, and refused in words."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoker.errors import StartRefusedError
from tests.unit.kubernetes_engine.planned_jobs import POLICY, made, plan
from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.code_map import MAX_CODE_BYTES, CodeFile, CodeMap, code_map, content_hash, inline_files
from trigger.kubernetes_engine.policy import refusals
from trigger.pod_names import CONFIG_KEY

FILES = {"main.py": CodeFile(b"print()"), "lib/tool.sh": CodeFile(b"#!/bin/sh", executable=True)}
SEGMENTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda text: text not in (".", "..")
)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join)
CONTENTS = st.binary(max_size=50) | st.text(max_size=50).map(lambda text: text.encode("utf-8", "replace"))
FOLDERS = st.dictionaries(PATHS, st.builds(CodeFile, CONTENTS, st.booleans()), max_size=5)


def mounted(code: CodeMap) -> dict[str, CodeFile]:
    """The files as the kubelet puts them under the mount."""
    data, binary = code.manifest["data"], code.manifest["binaryData"]
    found = {}
    for item in code.items:
        key = item["key"]
        content = data[key].encode() if key in data else base64.b64decode(binary[key], validate=True)
        found[item["path"]] = CodeFile(content, item.get("mode") == 0o555)
    assert len(code.items) == len(data) + len(binary), "every key is mounted, and in one of both"
    return found


@settings(deadline=None)
@given(FOLDERS)
def test_files_are_mounted_byte_for_byte(files: dict[str, CodeFile]) -> None:
    code = code_map("mine", "convert", files)
    assert mounted(code) == files
    for key in (*code.manifest["data"], *code.manifest["binaryData"]):
        assert CONFIG_KEY.fullmatch(key)


def test_the_object() -> None:
    code = code_map("mine", "convert", FILES)
    assert code.name == f"mine-code-{content_hash(FILES)}"
    assert code.manifest == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": code.name, "labels": {names.MANAGED_BY: "invoker", names.INSTANCE: "mine"}},
        "immutable": True,
        "data": {"000-lib-tool.sh": "#!/bin/sh", "001-main.py": "print()"},
        "binaryData": {},
    }
    assert code.items == (
        {"key": "000-lib-tool.sh", "path": "lib/tool.sh", "mode": 0o555},
        {"key": "001-main.py", "path": "main.py"},
    )


@pytest.mark.parametrize(
    ("data", "is_text"),
    [
        (b"", True),
        (b"a\tb\r\nc\n", True),
        ("é€\U0001f600\u2028".encode(), True),
        (b"\x7f", True),
        (b"\xff", False),
        (b"a\0b", False),
        (b"\x1b[31m", False),
        (b"\xed\xa0\x80", False),
    ],
)
def test_what_is_sent_as_text(data: bytes, is_text: bool) -> None:
    code = code_map("mine", "convert", {"a": CodeFile(data)})
    assert bool(code.manifest["data"]) == is_text
    assert bool(code.manifest["binaryData"]) == (not is_text)
    assert mounted(code)["a"].data == data


# the name is the content


@settings(deadline=None)
@given(FOLDERS, FOLDERS)
def test_equal_code_is_one_map_and_other_code_another(one: dict[str, CodeFile], other: dict[str, CodeFile]) -> None:
    assert (content_hash(one) == content_hash(other)) == (one == other)
    backwards = dict(reversed(one.items()))
    assert code_map("mine", "a", one) == code_map("mine", "b", backwards), "whose it is does not matter, nor the order"


@pytest.mark.parametrize(
    "files",
    [
        {"main.py": CodeFile(b"print(1)"), "lib/tool.sh": FILES["lib/tool.sh"]},
        {"main.py": CodeFile(b"print()", executable=True), "lib/tool.sh": FILES["lib/tool.sh"]},
        {"main2.py": CodeFile(b"print()"), "lib/tool.sh": FILES["lib/tool.sh"]},
        {"main.py": CodeFile(b"print()")},
        {**FILES, "empty": CodeFile(b"")},
    ],
)
def test_any_change_is_another_name(files: dict[str, CodeFile]) -> None:
    assert code_map("mine", "convert", files).name != code_map("mine", "convert", FILES).name


def test_names_and_contents_are_told_apart() -> None:
    assert content_hash({"a": CodeFile(b"-b")}) != content_hash({"a-": CodeFile(b"b")})
    assert content_hash({"a": CodeFile(b"b-c")}) != content_hash({"a": CodeFile(b""), "b": CodeFile(b"c")})


@settings(deadline=None)
@given(FOLDERS)
def test_the_hash_is_part_of_a_name(files: dict[str, CodeFile]) -> None:
    assert re.fullmatch("[a-z2-7]{26}", content_hash(files))


def test_two_installations_have_their_own() -> None:
    assert code_map("a", "f", FILES).name != code_map("b", "f", FILES).name


def test_long_and_strange_paths_have_legal_keys() -> None:
    paths = ["x" * 300 + ".py", "ä/ö ü.py", "a b", "a-b", "a/b", "..a", "\U0001f600", "$(x)", "a\nb"]
    code = code_map("mine", "convert", {path: CodeFile(path.encode()) for path in paths})
    assert {path: file.data.decode() for path, file in mounted(code).items()} == {path: path for path in paths}
    keys = [item["key"] for item in code.items]
    assert len(set(keys)) == len(paths)
    assert max(map(len, keys)) <= 253


def job_with(code: CodeMap) -> list[str]:
    """What the policy says of the volume that these items are mounted by."""
    return refusals(made(plan(), code=code), POLICY)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a\0b"])
def test_a_path_that_leads_out_is_refused_with_its_job(path: str) -> None:
    found = job_with(code_map("mine", "convert", {path: CodeFile(b"")}))
    assert found
    assert all(".configMap.items[0].path: " in one for one in found)
    assert job_with(code_map("mine", "convert", FILES)) == []


# what is refused


def test_code_of_exactly_the_limit_fits() -> None:
    size = MAX_CODE_BYTES - len("main.py")
    assert code_map("mine", "convert", {"main.py": CodeFile(b"x" * size)})
    with pytest.raises(StartRefusedError) as refused:
        code_map("mine", "convert", {"main.py": CodeFile(b"x" * (size + 1))})
    assert refused.value.message == "the code of convert has 921601 bytes; a ConfigMap takes at most 921600"
    assert refused.value.hint == "bake the code into an image and name it with 'image:'"
    assert refused.value.fields["reason"] == "config"


def test_the_limit_is_that_of_all_files_with_their_names() -> None:
    half = CodeFile(b"x" * (MAX_CODE_BYTES // 2))
    with pytest.raises(StartRefusedError, match=r"has 921602 bytes"):
        code_map("mine", "convert", {"a": half, "b": half})


def test_names_that_are_no_utf8_are_refused_in_words() -> None:
    with pytest.raises(StartRefusedError) as refused:
        code_map("mine", "convert", {"a\udcffb": CodeFile(b"")})
    assert refused.value.message == r"the code of convert has a file whose name is no UTF-8: 'a\udcffb'"
    assert refused.value.fields["reason"] == "config"


# inline code


@pytest.mark.parametrize(
    ("handler", "path"), [("main.handle", "main.py"), ("other.run", "other.py"), ("a.b.c", "a.py")]
)
def test_inline_code_is_the_module_that_its_handler_names(handler: str, path: str) -> None:
    assert inline_files("convert", handler, "é\n") == {path: CodeFile("é\n".encode())}


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_inline_code_arrives_as_it_was_written(source: str) -> None:
    files: dict[str, Any] = dict(inline_files("convert", "main.handle", source))
    assert mounted(code_map("mine", "convert", files))["main.py"].data.decode() == source


def test_inline_code_that_is_no_text_is_refused_in_words() -> None:
    with pytest.raises(StartRefusedError, match="the code of convert is not valid Unicode: surrogates") as refused:
        inline_files("convert", "main.handle", "a\ud800")
    assert refused.value.fields["reason"] == "config"
