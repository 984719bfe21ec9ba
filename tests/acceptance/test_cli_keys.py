"""`invoker keys` as a user has it: what is shown, what is stored, what is refused and in which words."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.acceptance.cli_desk import Desk

pytestmark = pytest.mark.acceptance


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk with a file that has a key `old`, and one that is broken."""
    made = Desk(tmp_path_factory.mktemp("used"))
    assert made.run("keys", "new", "old", "--file", "keys.json", "--may", "read").code == 0
    (made.folder / "broken.json").write_text('{"keys": [')
    return made


def test_a_key_is_shown_once_and_stored_as_a_hash(desk: Desk) -> None:
    made = desk.run(
        "keys", "new", "ann", "--file", "keys.json", "--may", "publish orders.> f-*", "--rate", "5", "-o", "json"
    )
    assert made.code == 0, made.err
    assert made.json["key"].startswith(f"inv_{made.json['id']}_")
    assert made.json["calls_per_second"] == 5.0
    file = desk.folder / "keys.json"
    secret = made.json["key"].rpartition("_")[2]
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for form in ("table", "json", "yaml", "jsonl", "name"):
        listed = desk.run("keys", "list", "--file", "keys.json", "-o", form)
        assert listed.code == 0
        assert "ann" in listed.out
        assert secret not in listed.out
        assert json.loads(file.read_text())["keys"][0]["sha256"] not in listed.out
    plain = desk.run("keys", "new", "bob", "--file", "keys.json", "--may", "read", "-q")
    assert (plain.out.count("\n"), plain.err) == (1, "")
    assert desk.run("keys", "revoke", made.json["id"], "--file", "keys.json").code == 0
    assert desk.run("keys", "list", "--file", "keys.json", "-o", "name").lines == ["bob"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["new", "ann", "--file", "keys.json"], 2, "--may"),
        (["new", "ann", "--may", "read"], 2, "--file"),
        (["new", "ann", "--file", "keys.json", "--may", "rule"], 6, "'publish', 'read', 'operate' or 'admin'"),
        (["new", "ann", "--file", "keys.json", "--may", "read a..b"], 6, "empty token"),
        (["new", "a b", "--file", "keys.json", "--may", "read"], 6, "no name"),
        (["new", "ann\x1b[31m", "--file", "keys.json", "--may", "read"], 6, "no name"),
        (["new", "old", "--file", "keys.json", "--may", "read"], 6, "already"),
        (["new", "ann", "--file", "keys.json", "--may", "read", "--expires", "soon"], 2, "no duration"),
        (["new", "ann", "--file", "keys.json", "--may", "read", "--expires", "9999999d"], 2, "calendar"),
        (["new", "ann", "--file", "keys.json", "--may", "read", "--rate", "-1"], 6, "greater than 0"),
        (["new", "ann", "--file", "keys.json", "--may", "read", "--rate", "inf"], 6, "finite"),
        (["new", "ann", "--file", "no/such/folder.json", "--may", "read"], 2, "no/such"),
        (["new", "ann", "--file", ".", "--may", "read"], 2, "directory"),
        (["new", "ann", "--file", "broken.json", "--may", "read"], 2, "broken.json"),
        (["list", "--file", "missing.json"], 2, "No such file"),
        (["revoke", "nobody", "--file", "keys.json"], 4, "no key"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_and_changes_nothing(
    used: Desk, arguments: list[str], code: int, words: str
) -> None:
    before = {path.name: path.read_bytes() for path in used.folder.glob("*.json")}
    ran = used.run("keys", *arguments)
    assert ran.code == code, ran.err
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert "\x1b" not in ran.err
    assert {path.name: path.read_bytes() for path in used.folder.glob("*.json")} == before


def test_two_that_add_at_once_both_stay(desk: Desk) -> None:
    line = " & ".join(f"invoker keys new k{n} --file keys.json --may read" for n in range(4))
    assert desk.shell(f"{line} & wait").code == 0
    assert sorted(desk.run("keys", "list", "--file", "keys.json", "-o", "name").lines) == ["k0", "k1", "k2", "k3"]
