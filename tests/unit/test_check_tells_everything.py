"""`invoker functions check` tells every mistake of a file at once, also beside a key that does not exist."""

from __future__ import annotations

from pathlib import Path

from invoker.cli.checking import check_path

HEAD = "apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: hello}\nspec:\n"


def messages(folder: Path, spec: str) -> list[str]:
    (folder / "function.yaml").write_text(HEAD + spec)
    (folder / "main.py").write_text("def handle(event, context): return None\n")
    checked = check_path(folder)
    assert [one.message.startswith(str(folder)) for one in checked.problems] == [True] * len(checked.problems)
    return [one.message.removeprefix(f"{folder}/") for one in checked.problems]


def test_every_mistake_has_a_line_of_its_own(tmp_path: Path) -> None:
    assert messages(tmp_path, '  runtime: python\n  timeoutSeconds: "60"\n  concurrency: 0\n') == [
        "function.yaml:6: spec.timeoutSeconds: must be a number, not text",
        "function.yaml:7: spec.concurrency: must be at least 1, not 0",
    ]


def test_an_unknown_key_hides_nothing(tmp_path: Path) -> None:
    spec = (
        "  runtime: python\n  handlr: main.handle\n  backofLimit: 1\n  concurrency: 0\n"
        "  subscriptions: [{topic: a..b}, {topik: c}]\n  env: [{name: A, valeu: x}, 7]\n"
    )
    found = messages(tmp_path, spec)
    assert [one.split(": ")[0:2] for one in found] == [
        ["function.yaml:6", "spec.handlr"],
        ["function.yaml:7", "spec.backofLimit"],
        ["function.yaml:8", "spec.concurrency"],
        ["function.yaml:9", "spec.subscriptions[0].topic"],
        ["function.yaml:9", "spec.subscriptions[1].topik"],
        ["function.yaml:10", "spec.env[0].valeu"],
        ["function.yaml:10", "spec.env[1]"],
    ]
    assert "did you mean 'handler'?" in found[0]
    assert "not a number" in found[-1]


def test_what_a_mistyped_key_leaves_out_is_not_told_beside_it(tmp_path: Path) -> None:
    found = messages(tmp_path, "  runtim: python\n")
    assert len(found) == 1
    assert found[0].startswith("function.yaml:5: spec.runtim: unknown key 'runtim'; did you mean 'runtime'?")
