"""Outputs of images that know nothing of Invoker: what they print, or what they leave in their termination file."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest

from invoker.result import Reason, State
from tests.cluster.aftermath import attempts, soon_gone
from tests.cluster.engine_world import KubernetesWorld, kubernetes_world
from tests.cluster.facts import Cluster, KubectlError
from tests.cluster.images import BUSYBOX, PLAIN
from tests.conformance.engine_suite import ended, run
from trigger.plan import Code, InputMode, OutputMode, RunPlan

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
async def world(cluster: Cluster, module_namespace: str) -> AsyncIterator[KubernetesWorld]:
    async with kubernetes_world(cluster, module_namespace) as found:
        yield found


def busybox(world: KubernetesWorld, script: str, **fields: object) -> RunPlan:
    fields.setdefault("output", OutputMode.STDOUT)
    fields.setdefault("limits", soon_gone())
    return world.command("sh", "-c", script, image=BUSYBOX, **fields)


async def test_sort_of_an_input_file_in_a_busybox(world: KubernetesWorld) -> None:
    plan = busybox(world, "sort < $INVOKER_INPUT_FILE", input=InputMode.FILE)
    world.give_input(plan.run_id, b"pear\napple\nfig\n")
    status, end = await run(world, plan)
    assert (end.state, end.output) == (State.SUCCEEDED, b"apple\nfig\npear\n"), end
    assert attempts(status) == [(1, Reason.COMPLETED, 0)]


async def test_an_image_without_a_shell_that_reads_payload(world: KubernetesWorld) -> None:
    payload = base64.b64encode(b"stressed").decode()
    code = Code(image=PLAIN, command=("/plain",))
    plan = world.code(code, env={"PAYLOAD": payload}, input=InputMode.ENV, output=OutputMode.STDOUT)
    _, end = await run(world, plan)
    assert end.state is State.SUCCEEDED, end
    assert (end.output or b"").rstrip(b"\n") == b"desserts"


async def test_an_image_with_its_own_command(world: KubernetesWorld) -> None:
    """The function says nothing but which image."""
    payload = base64.b64encode(b"live").decode()
    plan = world.code(Code(image=PLAIN), env={"PAYLOAD": payload}, input=InputMode.ENV, output=OutputMode.STDOUT)
    _, end = await run(world, plan)
    assert end.state is State.SUCCEEDED, end
    assert (end.output or b"").rstrip(b"\n") == b"evil"


async def test_the_environment_of_gitfaas(world: KubernetesWorld) -> None:
    """`$(NAME)` and `$$` in a value are the function's, not Kubernetes'."""
    env = {"PAYLOAD": "e30=", "FUNCTION_UID": "run.token", "TOPIC": "a.b", "ODD": "$(TOPIC) $$ 'x' \n \\ ü"}
    plan = busybox(world, 'printf "%s|" "$PAYLOAD" "$FUNCTION_UID" "$TOPIC" "$ODD"', env=env, input=InputMode.ENV)
    _, end = await run(world, plan)
    assert end.output == "e30=|run.token|a.b|$(TOPIC) $$ 'x' \n \\ ü|".encode()


async def test_an_input_of_96_kib_in_the_environment(world: KubernetesWorld) -> None:
    value = base64.b64encode(b"x" * 72 * 1024).decode()
    plan = busybox(world, 'printf %s "$PAYLOAD" | wc -c', env={"PAYLOAD": value}, input=InputMode.ENV)
    _, end = await run(world, plan)
    assert (end.output or b"").strip() == str(96 * 1024).encode(), end


async def test_stdout_of_any_bytes(world: KubernetesWorld) -> None:
    """All bytes, no end of line at the end, and none of stderr in between. The one loss is the container runtime's: of
    a line that ends in CR LF it keeps the LF, as docs/functions.md says."""
    every = bytes(range(256))
    octal = "".join(f"\\0{byte:03o}" for byte in every)
    plan = busybox(world, f"printf '%b' '{octal}'; echo news >&2; printf '%b' '\\r-\\n\\n\\r\\n{octal}'")
    _, end = await run(world, plan)
    assert end.output == every + b"\r-\n\n\n" + every


async def test_stdout_of_five_megabytes_in_one_line(world: KubernetesWorld) -> None:
    plan = busybox(world, "head -c 5000000 /dev/zero; echo between >&2")
    _, end = await run(world, plan)
    assert end.output == bytes(5_000_000)


async def test_stdout_of_five_megabytes_in_lines(world: KubernetesWorld) -> None:
    script = "i=0; while [ $i -lt 50 ]; do echo n$i >&2; i=$((i+1)); head -c 99999 /dev/zero; echo; done"
    _, end = await run(world, busybox(world, script))
    assert end.output == (bytes(99_999) + b"\n") * 50


async def test_more_than_the_node_keeps_of_a_log(world: KubernetesWorld) -> None:
    """Nodes look every 10 s whether a log is above 10 MiB, and give out only what was printed after that. An output is
    not called whole then, and of a run that failed the last words are there."""
    talk = f"print('talk', flush=True); {_gate(world, 'talk')}; {TALK}; print('the end', flush=True)"
    talk = f"{talk}; {_gate(world, 'full')}"
    plans = (
        world.python(talk, output=OutputMode.STDOUT, limits=soon_gone()),
        world.python(talk, output=OutputMode.STDOUT, limits=soon_gone(output_bytes=1_000_000)),
        world.python(f"{talk}; sys.exit(3)", limits=soon_gone()),
    )
    ending = asyncio.gather(*(run(world, plan) for plan in plans))
    await world.until(lambda: are_listened_to(world, 5))  # to all three, and to the output of two
    world.host.gates["talk"].set()
    for plan in plans:
        await world.until(lambda plan=plan: is_begun_anew(world, plan))
    world.host.gates["full"].set()
    cut, bounded, failed = await ending
    for _, end in (cut, bounded):
        assert (end.state, end.reason, end.output) == (State.FAILED, Reason.OUTPUT_TOO_LARGE, None), end.message
    assert "containerLogMaxSize" in cut[1].message
    assert "at most 1000000 are allowed" in bounded[1].message, "what was counted, though the node has less"
    for _, end in (cut, bounded, failed):
        assert len(end.log_tail) == 64 * 1024
        assert end.log_tail.endswith(b"x\nthe end\n")


TALK = "import sys; sys.stdout.write(('x' * 8191 + '\\n') * 1500); sys.stdout.flush()"


def _gate(world: KubernetesWorld, name: str) -> str:
    """Python that goes on once the gate is open."""
    return world.gate(name).removeprefix("python3 -c ").strip('"')


async def are_listened_to(world: KubernetesWorld, streams: int) -> bool:
    """Whether the engine has so many logs open: an API server answers with the first line, so there has to be one."""
    return world.requests["log", 200] >= streams


async def is_begun_anew(world: KubernetesWorld, plan: RunPlan) -> bool:
    """Whether the node has begun a new file for a log that was full, and began with `talk`."""
    (pod,) = await world.pods(plan.run_id)
    try:
        beginning = await world.kubectl("logs", pod["metadata"]["name"], "--limit-bytes=10")
    except KubectlError:  # while it does
        return False
    return not beginning.startswith("talk")


async def test_a_log_that_was_full_before_this_controller_came(world: KubernetesWorld) -> None:
    """The one before it has left word how the output began."""
    talk = f"print('talk', flush=True); {_gate(world, 'talk')}; {TALK}; {_gate(world, 'full')}; print('the end')"
    plan = world.python(talk, output=OutputMode.STDOUT, limits=soon_gone())

    async def is_remembered() -> bool:
        job = await world.job(plan.run_id)
        return job is not None and "invoker.dev/printed" in job["metadata"]["annotations"]

    async with world.another_engine() as before:
        await before.start(plan)
        await world.until(lambda: are_listened_to(world, 1))
        world.host.gates["talk"].set()
        await world.until(is_remembered)
    await world.until(lambda: is_begun_anew(world, plan))
    assert await world.engine.adopt(plan.run_id) is not None
    world.host.gates["full"].set()
    _, end = await ended(world, plan.run_id)
    assert (end.reason, end.output) == (Reason.OUTPUT_TOO_LARGE, None), end


async def test_an_empty_stdout_is_an_empty_output(world: KubernetesWorld) -> None:
    _, end = await run(world, busybox(world, "echo only news >&2"))
    assert (end.state, end.output) == (State.SUCCEEDED, b"")


async def test_the_last_attempts_stdout_counts(world: KubernetesWorld) -> None:
    url = f"{world.host.url}/count/last-attempt"
    code = f"import sys, urllib.request as r; n = int(r.urlopen({url!r}).read()); print('of', n); sys.exit(n < 2)"
    plan = world.python(code, output=OutputMode.STDOUT, limits=soon_gone(backoff_limit=1))
    _, end = await run(world, plan)
    assert (end.state, end.output) == (State.SUCCEEDED, b"of 2\n")


async def test_the_termination_file(world: KubernetesWorld) -> None:
    plan = busybox(
        world,
        'echo printed; printf "%s" "[1, 2]" > "$INVOKER_TERMINATION_FILE"',
        output=OutputMode.TERMINATION,
    )
    _, end = await run(world, plan)
    assert (end.state, end.output, end.log_tail) == (State.SUCCEEDED, b"[1, 2]", b"printed\n")


async def test_a_termination_file_that_nobody_wrote(world: KubernetesWorld) -> None:
    _, end = await run(world, busybox(world, "echo printed", output=OutputMode.TERMINATION))
    assert (end.state, end.output) == (State.SUCCEEDED, b"")


async def test_a_termination_file_as_long_as_kubernetes_keeps_it(world: KubernetesWorld) -> None:
    """At 4 KiB nobody knows whether there was more, so that is refused, not cut."""
    write = 'head -c {} /dev/zero | tr "\\0" a > "$INVOKER_TERMINATION_FILE"'
    _, end = await run(world, world.plan(write.format(4095), output=OutputMode.TERMINATION, limits=soon_gone()))
    assert end.output == b"a" * 4095
    _, end = await run(world, world.plan(write.format(5000), output=OutputMode.TERMINATION, limits=soon_gone()))
    assert (end.state, end.reason, end.output) == (State.FAILED, Reason.OUTPUT_TOO_LARGE, None)
    assert "more than 4095 bytes" in end.message
