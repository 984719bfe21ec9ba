"""What holds for the tree as a whole: what importing a part loads, names of files, exports.

The directions of imports are contracts in pyproject.toml (`make imports`); here is what import-linter cannot see.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import invoker

ROOT = Path(__file__).parents[2]
BANNED_NAMES = re.compile(r"(^|_)(utils?|helpers?|common|base|manager|misc)($|_|s$)")
SOURCES = [path for folder in ("invoker", "trigger", "functions", "scripts") for path in (ROOT / folder).rglob("*.py")]


def loaded_by(statement: str) -> set[str]:
    """The modules in a fresh interpreter after a statement, without those that were there before."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def outsiders(modules: set[str]) -> set[str]:
    """The top-level packages among them that are neither ours nor the standard library's."""
    tops = {module.split(".")[0] for module in modules}
    return {top for top in tops if top not in sys.stdlib_module_names and top not in ("invoker", "trigger")}


def test_importing_the_runtime_loads_the_standard_library_only() -> None:
    modules = "attempt context event handler output settings typed"
    loaded = loaded_by("; ".join(f"import invoker.runtime.{name}" for name in modules.split()))
    assert outsiders(loaded) == set()
    ours = {name for name in loaded if name.split(".")[0] in ("invoker", "trigger")}
    assert {name for name in ours if not name.startswith("invoker.runtime")} <= {"invoker", "invoker.version"}


def test_the_runtime_names_nothing_but_the_standard_library_and_itself() -> None:
    for path in (ROOT / "invoker" / "runtime").glob("*.py"):
        for module in imported_names(path):
            top = module.split(".")[0]
            assert top in sys.stdlib_module_names or top == "invoker_runtime", f"{path.name} imports {module}"


def test_importing_invoker_loads_none_of_its_parts() -> None:
    loaded = loaded_by("import invoker")
    assert outsiders(loaded) == set()
    assert {name for name in loaded if name.startswith(("invoker", "trigger"))} == {"invoker", "invoker.version"}


def test_the_command_line_loads_nothing_heavy_before_a_command_needs_it() -> None:
    loaded = loaded_by("import invoker.cli.tree")
    assert outsiders(loaded) & {"nats", "pydantic", "starlette", "uvicorn", "rich", "structlog", "yaml"} == set()
    assert {name for name in loaded if name.startswith("trigger")} == set()


def test_invoker_imports_trigger_inside_functions_only() -> None:
    for path in (ROOT / "invoker").rglob("*.py"):
        tree = ast.parse(path.read_text())
        at_the_top = {module for node in tree.body for module in named_by(node)}
        assert not {module for module in at_the_top if module.split(".")[0] == "trigger"}, path


def test_every_export_can_be_imported_and_is_known_to_type_checkers() -> None:
    assert sorted(invoker.__all__) == invoker.__all__
    for name in invoker.__all__:
        assert getattr(invoker, name) is not None
    assert set(invoker._HOMES) | {"__version__"} == set(invoker.__all__)
    tree = ast.parse((ROOT / "invoker" / "__init__.py").read_text())
    checking = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {f"{part.module}:{alias.name}" for part in checking.body if isinstance(part, ast.ImportFrom)
             for alias in part.names}  # fmt: skip
    assert typed == {f"{home}:{name}" for name, home in invoker._HOMES.items()}
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = invoker.Nothing


def test_every_module_can_be_imported() -> None:
    for path in [*(ROOT / "invoker").rglob("*.py"), *(ROOT / "trigger").rglob("*.py")]:
        if path.name != "__main__.py":
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            import_module(name.removesuffix(".__init__"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is(path: Path) -> None:
    assert not BANNED_NAMES.search(path.stem), "name the concept instead"
    text = path.read_text()
    assert not text or ast.get_docstring(ast.parse(text)), "begins with a docstring that says what the file is"


@pytest.mark.parametrize("name", ["utils", "test_helpers", "base", "run_manager", "common", "misc"])
def test_drawers_are_recognised(name: str) -> None:
    assert BANNED_NAMES.search(name)
    assert not BANNED_NAMES.search("database")


def test_samples_import_neither_package() -> None:
    for path in (ROOT / "functions").rglob("*.py"):
        tops = {module.split(".")[0] for module in imported_names(path)}
        assert not tops & {"invoker", "trigger"}, path


def imported_names(path: Path) -> set[str]:
    """Every module that a file imports absolutely, wherever in it, save for type checkers only."""
    tree = ast.parse(path.read_text())
    checked_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    return {module for node in ast.walk(tree) if id(node) not in checked_only for module in named_by(node)}


def named_by(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return {node.module}
    return set()
