"""Records what `kubectl get -w` shows of one pipeline run, for docs/kubernetes.md.

    python scripts/kubernetes_transcript.py NAMESPACE ADDRESS           prints it
    python scripts/kubernetes_transcript.py NAMESPACE ADDRESS --write   puts it on the page

It needs a cluster as `invoker dev --engine kubernetes` does: a kubeconfig, a namespace, an image in
INVOKER_RUNTIME_IMAGES, and an address of this machine that pods reach. kubectl watches one kind of objects at a time,
so three of them run beside each other, and their lines are put together in the order in which they come. A line that
repeats the last one of its object is left out, run ids are shortened; nothing else is changed.
"""

from __future__ import annotations

import json
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "kubernetes.md"
INVOKER = str(Path(sys.executable).parent / "invoker")
EVENT = {"source": "data/tzdata", "pattern": "zone1970*"}
TTL_SECONDS = 10
LIMIT_SECONDS = 180
_PART = re.compile(r"(<!-- recorded: pipeline[^>]* -->\n```text\n).*?(```)", re.DOTALL)
_FUNCTION = r"FUNCTION:.object.metadata.labels.invoker\.dev/function"
_RUN = re.compile(r"([a-z2-7]{5})[a-z2-7]{21}")
COLUMNS = {
    "jobs": ("ACTIVE:.object.status.active", "DONE:.object.status.succeeded",
             "TTL:.object.spec.ttlSecondsAfterFinished", "FINALIZERS:.object.metadata.finalizers[*]"),
    "pods": ("PHASE:.object.status.phase", "NODE:.object.spec.nodeName"),
    "pvc": ("PHASE:.object.status.phase", "SIZE:.object.spec.resources.requests.storage"),
}  # fmt: skip
HEAD = f"{'after':>7}  {'what':<9} {'kind':<4} {'function':<10} {'name':<39} state"

Line = tuple[float, str, list[str]]


@contextmanager
def watching(kind: str, namespace: str, lines: queue.Queue[Line]) -> Iterator[None]:
    """Every change of these objects of Invoker, from now on, as (instant, kind, columns)."""
    columns = ",".join(("EVENT:.type", "NAME:.object.metadata.name", _FUNCTION, *COLUMNS[kind]))
    process = subprocess.Popen(
        ["kubectl", "-n", namespace, "get", kind, "-l", "app.kubernetes.io/managed-by=invoker", "--watch",
         "--output-watch-events", "--no-headers", "-o", f"custom-columns={columns}"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put((time.monotonic(), kind, line.split()))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        reader.join()


@contextmanager
def development(namespace: str, address: str, folder: Path) -> Iterator[str]:
    """`invoker dev` with the sample functions, their TTL short; gives the address of its NATS."""
    shutil.copytree(ROOT / "functions" / "samples", folder / "functions")
    for file in folder.glob("functions/*/function.yaml"):
        file.write_text(f"{file.read_text()}  ttlSecondsAfterFinished: {TTL_SECONDS}\n")
    process = subprocess.Popen(
        [INVOKER, "--quiet", "dev", "--engine", "kubernetes", "--namespace", namespace, "--http-host", address,
         "--catalog", str(folder / "functions"), "--state", str(folder / "state"), "--port", "0", "--http-port", "0",
         "-o", "json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        if not first:
            raise SystemExit(process.wait() or 1)
        threading.Thread(target=process.stdout.read, daemon=True).start()  # or its pipe would fill
        yield str(json.loads(first)["nats_url"])
    finally:
        process.terminate()
        process.wait()


def recorded(namespace: str, address: str) -> str:
    """The transcript: the command, its answer, and what was seen meanwhile until all Jobs were gone."""
    lines: queue.Queue[Line] = queue.Queue()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for kind in COLUMNS:
            stack.enter_context(watching(kind, namespace, lines))
        url = stack.enter_context(development(namespace, address, Path(folder)))
        began = time.monotonic()
        published = _invoker(url, "publish", "demo.collect", json.dumps(EVENT))
        chain = _invoker(url, "result", "@latest", "--chain", "--wait", "120")
        took = time.monotonic() - began
        seen = list(_until_gone(lines, began))
    shown = [f"$ invoker publish demo.collect '{json.dumps(EVENT)}'", *published, HEAD, *_rows(seen, began)]
    return "\n".join([*shown, f"$ invoker result @latest --chain        (complete after {took:.1f} s)", *chain, ""])


def _invoker(url: str, *arguments: str) -> list[str]:
    done = subprocess.run([INVOKER, "--server", url, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return done.stdout.splitlines()


def _until_gone(lines: queue.Queue[Line], began: float) -> Iterator[Line]:
    """The changes until every Job that was seen has been removed, and nothing has happened for a while since."""
    there: set[str] = set()
    while time.monotonic() < began + LIMIT_SECONDS:
        try:
            line = lines.get(timeout=3.0)
        except queue.Empty:
            if not there:
                return
            continue
        _, kind, (what, name, *_) = line
        if kind == "jobs":
            (there.discard if what == "DELETED" else there.add)(name)
        yield line
    raise SystemExit(f"still there after {LIMIT_SECONDS} s: {', '.join(sorted(there))}")


def _rows(seen: Sequence[Line], began: float) -> Iterator[str]:
    last: dict[tuple[str, str], list[str]] = {}
    for at, kind, (what, name, function, *state) in seen:
        if last.get((kind, name)) == [what, *state]:
            continue
        last[kind, name] = [what, *state]
        short = _RUN.sub(r"\1…", name)
        place = f"{what:<9} {kind.rstrip('s'):<4} {function:<10} {short:<39}"
        yield f"{max(0.0, at - began):6.2f}s  {place} {_state(kind, state)}"


def _state(kind: str, state: list[str]) -> str:
    shown = ["-" if one == "<none>" else one for one in state]
    if kind == "jobs":
        active, done, ttl, finalizers = shown
        return f"active {active}, done {done}, ttl {ttl} s, finalizers {finalizers}"
    return " ".join(one for one in shown if one != "-")


def main(arguments: list[str]) -> int:
    places = [one for one in arguments if not one.startswith("-")]
    if len(places) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    text = recorded(*places)
    if "--write" not in arguments:
        print(text, end="")
        return 0
    PAGE.write_text(_PART.sub(lambda found: found[1] + text + found[2], PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
