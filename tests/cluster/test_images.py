"""The project's images, built from their Dockerfiles and run as pods: read-only, as 10001, under Pod Security.

The base is bare: Python and nothing beside it, no shell and no package manager. What works on that works on any base.
"""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client as NatsClient

from invoker.result import Result
from invoker.runtime import IMAGE_COMMAND, IMAGE_FETCH_COMMAND
from tests.cluster.built_image import config_of, content_bytes, layers_of
from tests.cluster.facts import Cluster
from tests.cluster.image_builder import build_archive, build_image
from tests.cluster.images import BASE, BUSYBOX
from tests.cluster.pods import EndedContainer, PodDesk, container, pod_spec
from tests.integration.run_world import Run, RunWorld, run_world

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "functions" / "runtimes" / "python"
SAMPLES = ROOT / "functions" / "samples"
NAMES = ("collect", "uncompress", "convert")
BARE, PYTHON, PACKAGED = (f"localhost/images-{name}:test" for name in ("bare", "python", "packaged"))
MAX_ADDED_BYTES = 1024 * 1024
MAX_MOUNTED_BYTES = 900 * 1024

STRIP = """
import glob, os, shutil
for path in ("/usr/lib/apt", "/usr/lib/dpkg", "/var/lib/dpkg", "/etc/apt", *glob.glob("/usr/lib/python3*/*-packages")):
    shutil.rmtree(path, ignore_errors=True)
for pattern in ("apt*", "dpkg*", "pip*", "sh", "bash", "dash", "perl*"):
    for path in glob.glob(f"/usr/*bin/{pattern}") + glob.glob(f"/usr/local/*bin/{pattern}"):
        os.unlink(path)
"""


@dataclass(frozen=True)
class Stage:
    """A run API that pods reach, and a desk to make pods at."""

    world: RunWorld
    desk: PodDesk

    def environment(self, run: Run, **more: str) -> dict[str, str]:
        """What the engine tells a pod; the image knows the rest."""
        return {
            "INVOKER_RUN_URL": run.url,
            "INVOKER_RUN_TOKEN": run.token,
            "INVOKER_RUN_ID": run.run_id,
            "INVOKER_REQUEST_ID": run.address.request_id,
            "INVOKER_FUNCTION": run.address.function,
            "INVOKER_POD_UID": "pod-1",
            "INVOKER_TERMINATION_FILE": "/dev/termination-log",
        } | more

    async def run_code(self, run: Run, folder: Path, image: str = PYTHON) -> EndedContainer:
        """One run of the code in a folder, mounted into an image."""
        ended = await self.desk.run(await self.pod_of_code(run, folder, image))
        return ended["function"]

    async def pod_of_code(self, run: Run, folder: Path, image: str = PYTHON, **more: Any) -> dict[str, Any]:
        """The spec of a pod that is such a run."""
        mounts = [{"name": "work", "mountPath": "/work"}, {"name": "code", "mountPath": "/code", "readOnly": True}]
        env = self.environment(run, INVOKER_HANDLER="main.handle")
        volume = await self.desk.mounted(folder)
        return pod_spec(container("function", image, env, volumeMounts=mounts), volumes=(volume,), **more)


@pytest.fixture
async def stage(cluster: Cluster, namespace: str, client: NatsClient) -> AsyncIterator[Stage]:
    async with run_world(client, host=cluster.host_address) as world:
        yield Stage(world, PodDesk(cluster, namespace))


@pytest.fixture(scope="session")
def bare(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's Python with everything taken away that an image might lean on by accident."""
    if cluster.state is None:
        pytest.skip("a given cluster (INVOKER_TEST_KUBECONFIG) takes no images that are built here")
    folder = tmp_path_factory.mktemp("bare")
    script = json.dumps(["python3", "-c", STRIP])
    (folder / "Dockerfile").write_text(f"ARG BASE\nFROM ${{BASE}}\nRUN {script}\n")
    return build_archive(folder / "Dockerfile", folder, BARE, {"BASE": BASE})


@pytest.fixture(scope="session")
def python(bare: Path, cluster: Cluster) -> Path:
    """The runtime's image on the bare base, in the cluster; its archive."""
    arguments = RUNTIME / "Dockerfile", ROOT, PYTHON, {"BASE": BARE}
    build_image(cluster, *arguments)
    return build_archive(*arguments)


@pytest.fixture(scope="session")
def samples(python: Path, cluster: Cluster) -> dict[str, str]:
    """The samples' images on that one, in the cluster, by the sample's name."""
    images = {name: f"localhost/images-sample-{name}:test" for name in NAMES}
    for name, image in images.items():
        build_image(cluster, SAMPLES / name / "Dockerfile", SAMPLES / name, image, {"BASE": PYTHON})
    return images


def code(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(text)
    return folder


def output(result: Result | None) -> Any:
    assert result is not None
    assert result.succeeded
    return json.loads(result.output.inline_bytes() or b"null")


# the image


def test_the_runtime_adds_little_to_its_base_and_says_how_it_runs(bare: Path, python: Path) -> None:
    below, above = layers_of(bare), layers_of(python)
    assert above[: len(below)] == below
    added = sum(content_bytes(python, layer["digest"]) for layer in above[len(below) :])
    sent = sum(layer["size"] for layer in above[len(below) :])
    print(f"the runtime adds {added:,} bytes to its base, {sent:,} bytes as they are sent")
    assert 50_000 < added < MAX_ADDED_BYTES
    config = config_of(python)
    assert config["User"] == "10001:10001"
    assert tuple(config["Entrypoint"]) == IMAGE_COMMAND
    assert not config.get("Cmd")
    assert config["Labels"]["org.opencontainers.image.title"] == "invoker-python"
    assert "INVOKER_CODE_DIR=/code" in config["Env"]


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_small_enough_to_be_mounted(name: str) -> None:
    files = [file for file in (SAMPLES / name).rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in files) < MAX_MOUNTED_BYTES


SURROUNDINGS = """
import getpass, os, shutil, sys

def handle(event, context):
    try:
        open("/opt/invoker/x", "w")
    except OSError as error:
        refused = error.strerror
    cached = sys.modules["invoker_runtime.attempt"].__cached__
    return {
        "user": [os.getuid(), os.getgid(), getpass.getuser()],
        "pid": os.getpid(),
        "places": [os.getcwd(), context.workdir, os.path.expanduser("~"), os.environ["TMPDIR"]],
        "root": refused,
        "found": [name for name in ("python3", "sh", "apt-get", "dpkg", "pip") if shutil.which(name)],
        "compiled": [os.path.dirname(cached), os.path.exists(cached)],
        "data": event["data"],
    }
"""


async def test_it_runs_read_only_without_root_and_without_a_shell(stage: Stage, python: Path, tmp_path: Path) -> None:
    run = await stage.world.accept(b'{"a": 1}', content_type="application/json")
    ended = await stage.run_code(run, code(tmp_path / "code", SURROUNDINGS))
    assert (ended.code, ended.log, ended.message) == (0, "", "")
    assert output(await run.result()) == {
        "user": [10001, 10001, "invoker"],
        "pid": 1,
        "places": ["/work"] * 4,
        "root": "Read-only file system",
        "found": ["python3"],
        "compiled": ["/opt/invoker/runtime/__pycache__", True],
        "data": {"a": 1},
    }


WAITING = """
import time
def handle():
    print("up", flush=True)
    try:
        time.sleep(600)
    finally:
        print("down")
"""


async def test_process_1_ends_when_it_is_told_to(stage: Stage, python: Path, tmp_path: Path) -> None:
    """The kernel spares process 1 from signals that it has no handler for; the kubelet would wait out the grace."""
    run = await stage.world.accept(b"x")
    folder = code(tmp_path / "code", WAITING)
    pod = await stage.desk.start(await stage.pod_of_code(run, folder, terminationGracePeriodSeconds=600))
    await stage.desk.printed(pod, "up\n")
    # A limit of its own ends it and leaves it there to be looked at; given only now, when the handler is sure to run.
    await stage.desk.patch(pod, {"spec": {"activeDeadlineSeconds": 1}})
    ended = (await stage.desk.ended(pod))["function"]
    assert ended.code == 143
    # Two streams, which the node reads one beside the other: their order is not promised.
    assert sorted(ended.log.splitlines()) == [
        "down",
        "invoker: the attempt was ended by a signal while at main.py, line 6",
        "up",
    ]
    note = json.loads(ended.message)
    assert note["type"] == "Terminated"
    assert "/code/main.py" in note["traceback"]
    lived = datetime.fromisoformat(ended.finished_at) - datetime.fromisoformat(ended.started_at)
    assert lived.total_seconds() < 300, "the grace was waited out"
    assert await run.result() is None


async def test_a_failure_is_told_in_the_termination_message(stage: Stage, python: Path, tmp_path: Path) -> None:
    run = await stage.world.accept(b"x")
    ended = await stage.run_code(run, code(tmp_path / "code", "def handle(): raise ValueError('no such table')"))
    assert ended.code == 1
    assert json.loads(ended.message)["message"] == "no such table"
    assert "/code/main.py" in ended.log


# input.as: file


async def test_an_image_that_knows_nothing_of_invoker_reads_its_input(stage: Stage, python: Path) -> None:
    """`sort < $INVOKER_INPUT_FILE`, with the input fetched by an init container of the runtime's image."""
    lines = [f"line {number:05}" for number in range(20_000)]
    run = await stage.world.accept("\n".join(reversed(lines)).encode())
    env = stage.environment(run, INVOKER_INPUT_FILE="/invoker/input")
    mounts = [{"name": "work", "mountPath": "/work"}, {"name": "input", "mountPath": "/invoker"}]
    fetch = container("input", PYTHON, env, command=list(IMAGE_FETCH_COMMAND), volumeMounts=mounts)
    command = ["/bin/sh", "-c", "sort < $INVOKER_INPUT_FILE | sed -n '1p;$p'; ls -A /invoker"]
    sort = container("function", BUSYBOX, env, command=command, volumeMounts=mounts)
    spec = pod_spec(sort, initContainers=[fetch], volumes=({"name": "input", "emptyDir": {}},))
    ended = await stage.desk.run(spec)
    assert ended["input"].code == 0, ended["input"].log
    assert ended["function"].log == "line 00000\nline 19999\ninput\n"


async def test_a_run_that_is_over_does_not_begin(stage: Stage, python: Path) -> None:
    run = await stage.world.accept(b"x")
    assert (await run.call("PUT", "output", b"first")).status == 201
    env = stage.environment(run, INVOKER_INPUT_FILE="/work/input")
    fetch = container("input", PYTHON, env, command=list(IMAGE_FETCH_COMMAND))
    never = container("function", BUSYBOX, env, command=["/bin/sh", "-c", "echo ran"])
    ended = await stage.desk.run(pod_spec(never, initContainers=[fetch]))
    assert ended["input"].code == 64
    assert ended["input"].log.startswith("invoker: this attempt is too late: ")
    assert "function" not in ended


# packages and samples


def write_wheel(folder: Path) -> None:
    """A package as pip takes it, made by hand."""
    folder.mkdir()
    metadata = {
        "METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "tiny.py,,\ntiny-1.0.dist-info/RECORD,,\n",
    }
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "NAME = 'a package'\n")
        for name, text in metadata.items():
            wheel.writestr(f"tiny-1.0.dist-info/{name}", text)


async def test_packages_are_installed_from_the_folder_of_wheels(stage: Stage, cluster: Cluster, tmp_path: Path) -> None:
    folder = code(
        tmp_path / "function", "import os, tiny\ndef handle(): return [tiny.NAME, sorted(os.listdir('/code'))]"
    )
    (folder / "requirements.txt").write_text("tiny==1.0\n")
    (folder / "main.py").chmod(0o600)
    write_wheel(folder / "wheels")
    with_pip = "localhost/images-python-pip:test"
    build_image(cluster, RUNTIME / "Dockerfile", ROOT, with_pip, {"BASE": BASE})
    build_image(cluster, RUNTIME / "function.Dockerfile", folder, PACKAGED, {"BASE": with_pip})
    run = await stage.world.accept(b"")
    env = stage.environment(run, INVOKER_HANDLER="main.handle")
    ended = (await stage.desk.run(pod_spec(container("function", PACKAGED, env))))["function"]
    assert ended.code == 0, ended.log
    assert output(await run.result()) == ["a package", ["__pycache__", "main.py", "requirements.txt"]]


def sample_event(name: str) -> bytes:
    (file,) = (SAMPLES / name).glob("event.*")
    return file.read_bytes()


SAMPLE_TOPICS = {
    "collect": ["collected.gz"],
    "uncompress": ["uncompressed.csv"],
    "convert": ["converted.jsonl"],
}
SAMPLE_EVENTS = {
    "collect": ("collect", {}),
    "uncompress": ("collected.gz", {"File-Name": "event.csv.gz"}),
    "convert": ("collected.csv", {"File-Name": "event.csv"}),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["baked", "mounted"])
async def test_a_sample_handles_the_event_beside_it(stage: Stage, samples: dict[str, str], name: str, way: str) -> None:
    topic, headers = SAMPLE_EVENTS[name]
    run = await stage.world.accept(sample_event(name), function=name, topic=topic, headers=headers)
    if way == "mounted":
        ended = await stage.run_code(run, SAMPLES / name)
    else:
        spec = pod_spec(container("function", samples[name], stage.environment(run)))
        ended = (await stage.desk.run(spec))["function"]
    assert ended.code == 0, ended.log
    assert output(await run.result())
    events = await stage.world.events()
    assert [event.subject.removeprefix("events.") for event in events] == SAMPLE_TOPICS[name]
    if name == "uncompress":
        assert events[0].data == gzip.decompress(sample_event(name))
