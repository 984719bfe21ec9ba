"""A function's code in the cluster: an immutable ConfigMap of its content, mounted into the Python runtime's image."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from invoker.errors import StartRefusedError
from invoker.result import Reason, State
from tests.cluster.aftermath import released_without_trace, soon_gone
from tests.cluster.engine_world import KubernetesWorld, kubernetes_world, names_of
from tests.cluster.facts import Cluster, KubectlError
from tests.conformance.engine_suite import run
from trigger.kubernetes_engine import KubernetesEngine, code_store
from trigger.kubernetes_engine.access import ClusterAccess
from trigger.kubernetes_engine.api import Api
from trigger.kubernetes_engine.code_store import map_of_code
from trigger.plan import Code, OutputMode, RunPlan

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

GREETING = "def handle(event, context):\n    return 'hello ' + event['data'].decode()\n"


@pytest.fixture
async def world(cluster: Cluster, module_namespace: str) -> AsyncIterator[KubernetesWorld]:
    async with kubernetes_world(cluster, module_namespace) as found:
        yield found


def python_plan(world: KubernetesWorld, data: bytes = b"you", **code: object) -> RunPlan:
    """A run of a Python function that prints what it returns."""
    given = Code(**({"runtime": "python", "handler": "main.handle"} | code))  # type: ignore[arg-type] # a test's choice
    env = {"INVOKER_HANDLER": str(given.handler)}
    plan = world.code(given, env=env, output=OutputMode.STDOUT, limits=soon_gone(), spec_hash=str(hash(given)))
    world.give_input(plan.run_id, data)
    return plan


async def maps(world: KubernetesWorld) -> list[str]:
    return names_of(await world.get("configmaps", "-l", f"invoker.dev/instance={world.instance}"))


async def test_inline_code(world: KubernetesWorld) -> None:
    _, end = await run(world, python_plan(world, inline=GREETING))
    assert (end.state, end.output) == (State.SUCCEEDED, b"hello you"), end


async def test_a_folder_with_modules_data_and_programs(world: KubernetesWorld, tmp_path: Path) -> None:
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "main.pyc").write_bytes(b"old")
    (tmp_path / ".env").write_text("secret")
    (tmp_path / "parts" / "words.py").write_text("HELLO = 'hello'\n")
    (tmp_path / "parts" / "deep" / "bytes.bin").write_bytes(bytes(range(256)))
    program = tmp_path / "tell"
    program.write_text("#!/bin/sh\necho told\n")
    program.chmod(0o755)
    (tmp_path / "main.py").write_text(
        "import json, os, pathlib, subprocess\n"
        "from parts.words import HELLO\n"
        "def handle(event, context):\n"
        "    here = pathlib.Path(__file__).parent\n"
        "    walk = os.walk(here, followlinks=True)\n"
        "    found = sorted(os.path.relpath(os.path.join(top, f), here) for top, _, fs in walk for f in fs)\n"
        "    found = [path for path in found if not path.startswith('..')]\n"
        "    data = list((here / 'parts/deep/bytes.bin').read_bytes())\n"
        "    told = subprocess.run([str(here / 'tell')], capture_output=True, text=True).stdout\n"
        "    writable = os.access(here / 'main.py', os.W_OK)\n"
        "    return [HELLO, found, data == list(range(256)), told, writable]\n"
    )
    _, end = await run(world, python_plan(world, folder=tmp_path))
    assert end.state is State.SUCCEEDED, end
    hello, found, data, told, writable = json.loads(end.output or b"")
    assert (hello, data, told, writable) == ("hello", True, "told\n", False)
    assert found == ["main.py", "parts/deep/bytes.bin", "parts/words.py", "tell"]


async def test_the_runs_of_a_version_share_one_map_that_cannot_be_changed(world: KubernetesWorld) -> None:
    plans = [python_plan(world, inline=GREETING) for _ in range(3)]
    for plan in plans:
        await world.engine.start(plan)
    (name,) = await maps(world)
    with pytest.raises(KubectlError, match="immutable"):
        await world.patch("configmap", name, {"data": {"000-main.py": "other"}})
    for plan in plans:
        job = await world.job(plan.run_id)
        assert job is not None
        mounted = [one["configMap"]["name"] for one in job["spec"]["template"]["spec"]["volumes"] if "configMap" in one]
        assert mounted == [name]


async def test_code_that_changed_is_another_map_and_a_run_keeps_its_own(world: KubernetesWorld) -> None:
    """The first version is mounted whole in a run that begins after the second was made."""
    first = python_plan(world, inline=GREETING)
    await world.engine.start(first)
    second = python_plan(world, inline=GREETING.replace("hello", "goodbye"))
    _, end = await run(world, second)
    assert end.output == b"goodbye you"
    _, end = await run(world, first)
    assert end.output == b"hello you"
    assert len(await maps(world)) == 2


async def test_a_map_goes_when_nothing_needs_it_and_not_earlier(world: KubernetesWorld) -> None:
    catalog: list[tuple[str, str, Code]] = []

    def functions() -> Iterable[tuple[str, str, Code]]:
        return catalog

    api = Api(ClusterAccess(kubeconfig=world.kubeconfig, namespace=world.namespace))
    async with KubernetesEngine(api, world.options, functions=functions) as sweeper:
        plan = python_plan(world, inline=GREETING)
        catalog.append((plan.function, plan.spec_hash, plan.code))
        await run(world, plan)
        (name,) = await maps(world)
        await released_without_trace(world, plan.run_id)
        for _ in range(3):
            assert await sweeper.sweep_code() == [], "a function of the catalog has it"

        catalog.clear()
        again = python_plan(world, inline=GREETING)
        await world.engine.start(again)
        for _ in range(3):
            assert await sweeper.sweep_code() == [], "a Job mounts it"
        await run(world, again)
        await released_without_trace(world, again.run_id)

        assert await sweeper.sweep_code() == [], "it is seen unused for the first time"
        assert await sweeper.sweep_code() == [name]
        assert await maps(world) == []
        assert await sweeper.sweep_code() == []


async def test_a_map_that_was_unused_once_and_is_needed_again_stays(world: KubernetesWorld) -> None:
    first = python_plan(world, inline=GREETING)
    await run(world, first)
    await released_without_trace(world, first.run_id)
    assert await world.engine.sweep_code() == []
    second = python_plan(world, inline=GREETING)
    await world.engine.start(second)
    assert await world.engine.sweep_code() == []
    _, end = await run(world, second)
    assert end.output == b"hello you"
    await released_without_trace(world, second.run_id)
    assert await world.engine.sweep_code() == []
    assert len(await world.engine.sweep_code()) == 1


async def test_a_sweep_leaves_other_maps_alone(world: KubernetesWorld) -> None:
    """Others' maps, and maps of another instance, whatever they are called."""
    marked = {"app.kubernetes.io/managed-by": "invoker", "invoker.dev/instance": world.instance}
    others = {
        f"{world.instance}-code-of-somebody": {},
        f"{world.instance}-notes": marked,
        "another-code-x": marked | {"invoker.dev/instance": "another"},
    }
    for name, labels in others.items():
        await world.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}})
    for _ in range(3):
        assert await world.engine.sweep_code() == []
    assert set(others) <= set(names_of(await world.get("configmaps")))


async def test_a_map_removed_by_a_sweep_is_made_again_by_the_same_engine(world: KubernetesWorld) -> None:
    first = python_plan(world, inline=GREETING)
    await run(world, first)
    await released_without_trace(world, first.run_id)
    await world.engine.sweep_code()
    assert len(await world.engine.sweep_code()) == 1
    _, end = await run(world, python_plan(world, inline=GREETING))
    assert end.output == b"hello you"


async def test_a_map_deleted_by_hand_is_made_again(world: KubernetesWorld) -> None:
    """At once by an engine that has not made it, and by the one that made it after a while."""
    first = python_plan(world, inline=GREETING)
    await run(world, first)
    (name,) = await maps(world)
    await world.kubectl("delete", "configmap", name)
    async with world.another_engine() as other:
        second = python_plan(world, inline=GREETING)
        await other.start(second)
        assert await maps(world) == [name]
        _, end = await run(world, second)
    assert end.output == b"hello you"


@pytest.mark.parametrize("difference", ["other code", "more code", "can be changed"])
async def test_a_map_of_that_name_with_other_content_is_not_run(world: KubernetesWorld, difference: str) -> None:
    """Whoever may make ConfigMaps in the namespace does not decide what functions do."""
    source = f"{GREETING}\n# {difference}\n"
    plan = python_plan(world, inline=source)
    code = await asyncio.to_thread(map_of_code, world.instance, plan.function, plan.code)
    assert code is not None
    planted = json.loads(json.dumps(code.manifest))
    match difference:
        case "other code":
            planted["data"]["000-main.py"] = "def handle(event, context): return 'planted'"
        case "more code":
            planted["binaryData"] = {"json.py": "cHJpbnQoInBsYW50ZWQiKQ=="}
        case _:
            del planted["immutable"]
    await world.apply(planted)
    with pytest.raises(StartRefusedError) as refusal:
        await world.engine.start(plan)
    assert refusal.value.fields["reason"] == Reason.REFUSED
    assert f"the ConfigMap {world.namespace}/{code.name} has other code" in refusal.value.message
    assert f"kubectl -n {world.namespace} delete configmap {code.name}" in (refusal.value.hint or "")
    await world.kubectl("delete", "configmap", code.name)
    _, end = await run(world, plan)
    assert end.output == b"hello you"


async def test_code_that_is_too_large(world: KubernetesWorld, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(GREETING)
    (tmp_path / "model.bin").write_bytes(bytes(1024 * 1024))
    with pytest.raises(StartRefusedError) as refusal:
        await world.engine.start(python_plan(world, folder=tmp_path))
    assert refusal.value.fields["reason"] == Reason.CONFIG
    assert "a ConfigMap takes at most 921600" in refusal.value.message
    assert "bake the code into an image" in (refusal.value.hint or "")
    assert await maps(world) == []


async def test_code_as_large_as_a_map_takes(world: KubernetesWorld, tmp_path: Path) -> None:
    """Half text, half bytes, which are longer in a ConfigMap than on disk."""
    source = GREETING + "#" * 80 + "\n"
    (tmp_path / "main.py").write_text(source)
    (tmp_path / "text.txt").write_text("ä" * 150_000)
    names = len("main.py") + len("text.txt") + len("data.bin")
    room = code_store.MAX_CODE_BYTES - len(source) - 300_000 - names
    (tmp_path / "data.bin").write_bytes(b"\xff" * room)
    _, end = await run(world, python_plan(world, folder=tmp_path))
    assert end.output == b"hello you", end


async def test_requirements_are_baked_and_not_installed(world: KubernetesWorld, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(GREETING)
    (tmp_path / "requirements.txt").write_text("requests\n")
    plan = python_plan(world, folder=tmp_path, requirements=tmp_path / "requirements.txt")
    with pytest.raises(StartRefusedError) as refusal:
        await world.engine.start(plan)
    assert refusal.value.fields["reason"] == Reason.CONFIG
    assert "has a requirements.txt, and no pod installs packages" in refusal.value.message
    assert "image" in (refusal.value.hint or "")
    assert await maps(world) == []


async def test_a_program_beside_the_functions_file(world: KubernetesWorld, tmp_path: Path) -> None:
    """A command without an image runs in the Python runtime's, from where its code is mounted."""
    program = tmp_path / "work.sh"
    program.write_text('#!/bin/sh\ncat "$INVOKER_CODE_DIR/words.txt"; printf %s "$1"\n')
    program.chmod(0o755)
    (tmp_path / "words.txt").write_text("read\n")
    code = Code(command=(str(program), "a b"), folder=tmp_path)
    _, end = await run(world, world.code(code, output=OutputMode.STDOUT))
    assert (end.state, end.output) == (State.SUCCEEDED, b"read\na b"), end
