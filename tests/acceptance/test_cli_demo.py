"""`invoker demo`: ends by itself, with the right numbers, on a terminal as in a pipe, and leaves nothing behind."""

from __future__ import annotations

import gzip
import hashlib
import socket
from pathlib import Path

import pytest

from tests.acceptance.cli_desk import Desk, until

pytestmark = pytest.mark.acceptance

LONG = 250.0
"""Seconds for a whole demo: a start of everything, and eight processes in three stages."""
ROWS = "name,size\n" + "".join(f"row {number},{number}\n" for number in range(1234))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    return Desk(tmp_path, {"TMPDIR": str(temporary)})


def left_behind(desk: Desk) -> list[Path]:
    return list((desk.folder / "tmp").iterdir())


def test_the_default_data_in_a_pipe(desk: Desk) -> None:
    ran = desk.run("demo", timeout=LONG)
    assert ran.code == 0, ran.err
    runs = [line for line in ran.lines if line.startswith("✓ ")]
    assert len(runs) == 8
    tables = [line for line in ran.lines if " rows  sha256 " in line]
    assert {line.split()[0] for line in tables} == {"zone1970.tab", "iso3166.tab", "zone.tab", "leapseconds"}
    assert all(len(line.split()[-1]) == 64 for line in tables)
    assert ran.lines[-1].startswith(" ✓ done in ")
    assert ran.lines[-1].endswith("8 runs, 1,058 rows")
    assert "\x1b" not in ran.out
    assert left_behind(desk) == []


def test_a_tree_is_drawn_on_a_terminal(desk: Desk) -> None:
    with desk.terminal("demo") as screen:
        assert screen.ends(LONG) == 0
    assert "✓ collect  demo.collect  succeeded" in screen.text
    assert "converted.jsonl  ∅ nothing subscribes to it" in screen.text
    assert "✓ done in" in screen.text
    assert "\x1b[32m✓ convert" in screen.drawn.decode()


def test_a_source_of_ones_own(desk: Desk) -> None:
    data = desk.folder / "data"
    data.mkdir()
    (data / "rows.csv.gz").write_bytes(gzip.compress(ROWS.encode()))
    (data / "other.txt").write_text("not asked for")
    ran = desk.run("demo", "data", "--pattern", "*.gz", "-o", "json", timeout=LONG)
    assert ran.code == 0, ran.err
    document = ran.json
    assert set(document) == {"request_id", "succeeded", "seconds", "runs", "rows", "tables"}
    assert (document["succeeded"], document["runs"], document["rows"]) == (True, 3, 1234)
    (table,) = document["tables"]
    assert table["name"] == "rows.csv"
    wanted = "".join(f'{{"name":"row {number}","size":{number}}}\n' for number in range(1234))
    spaced = wanted.replace(":", ": ").replace(",", ", ")
    assert table["sha256"] in {hashlib.sha256(text.encode()).hexdigest() for text in (wanted, spaced)}


def test_a_run_that_fails_is_an_exit_code(desk: Desk) -> None:
    (desk.folder / "broken.gz").write_bytes(gzip.compress(ROWS.encode())[:-20])
    ran = desk.run("demo", "broken.gz", timeout=LONG)
    assert ran.code == 3
    assert "✗ uncompress" in ran.out
    assert "not done in" in ran.out
    assert "[run-failed]" in ran.err
    assert ran.err.rstrip().endswith("try: invoker demo broken.gz --keep"), "its run is known to nobody any more"
    assert "Traceback" not in ran.err
    assert left_behind(desk) == []


def test_a_source_that_is_not_there(desk: Desk) -> None:
    ran = desk.run("demo", "nowhere")
    assert ran.code == 6
    assert "error: nowhere does not exist" in ran.err
    assert left_behind(desk) == []


def test_ctrl_c_ends_it_and_leaves_nothing(desk: Desk) -> None:
    with desk.terminal("demo", "--keep") as screen:
        screen.sees("still running", within=LONG)
        assert until(lambda: left_behind(desk) or None)
        screen.type("\x03")
        assert screen.ends() == 0
    assert left_behind(desk) == []
    with socket.socket() as silent:  # takes a connection and never answers: the demo is not through before Ctrl-C
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with desk.terminal("demo", f"http://127.0.0.1:{silent.getsockname()[1]}/table.csv") as screen:
            screen.sees("Three functions")
            screen.type("\x03")
            assert screen.ends() == 130
            assert "Traceback" not in screen.text
    assert left_behind(desk) == []
