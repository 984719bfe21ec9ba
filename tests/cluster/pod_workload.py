"""What the kill tests run in pods: one event, functions of every kind beside each other; and the proof.

    start.* ──▶ answers (Python, over the run API) ──▶ middle: second
            ├─▶ prints  (stdout, with a volume)
            ├─▶ fails   (exit code 3)
            └─▶ retries (fails once, then prints)

Every function notes its starts with a server of the test, so it can be seen what really ran, and when.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invoker import wire
from invoker.result import Reason, Result
from tests.cluster.controllers import SOON_GONE, Desk
from tests.cluster.engine_world import BASE_IMAGE
from tests.custody.workload import Workload, function, write_catalog

ALL = ("answers", "fails", "prints", "retries")
NOTE = """
note() {
  rest=${NOTES#http://}
  exec 3<>"/dev/tcp/${rest%:*}/${rest#*:}"
  printf 'GET /%s/%s/%s HTTP/1.0\\r\\n\\r\\n' "$1" "$INVOKER_FUNCTION" "$INVOKER_RUN_ID" >&3
  said=$(tail -n 1 <&3); exec 3>&-
}"""
"""`note WHAT`; afterwards `$said` is how often this run has noted it."""
ANSWER = """
import os, urllib.request
def handle(event, context):
    words = (os.environ["NOTES"], "start", os.environ["INVOKER_FUNCTION"], os.environ["INVOKER_RUN_ID"])
    urllib.request.urlopen("/".join(words)).read()
    return "answered"
"""
ATTEMPTS = {"answers": [None], "fails": [3], "retries": [1, 0]}
"""The exit codes of each function's attempts: its answer is sealed while it lives."""


def script(name: str, topic: str, text: str, desk: Desk, **spec: Any) -> dict[str, Any]:
    """A bash script in a pod, whose Job goes as soon as it is released."""
    document = function(name, topic, f"{NOTE}\n{text}", image=BASE_IMAGE, **(SOON_GONE | spec))
    document["spec"]["env"] = [{"name": "NOTES", "value": desk.notes_url}]
    return document


def python(name: str, topic: str, code: str, desk: Desk, **spec: Any) -> dict[str, Any]:
    """Python code that lies in a ConfigMap."""
    document = function(name, topic, "", runtime="python", code=code, **(SOON_GONE | spec))
    del document["spec"]["command"]
    document["spec"]["env"] = [{"name": "NOTES", "value": desk.notes_url}]
    return document


def pod_catalog(root: Path, desk: Desk, chosen: Collection[str] = ALL) -> Path:
    """The functions of the picture above, or some of them."""
    plain = 'note start; printf %s "$INVOKER_FUNCTION"'
    stdout: dict[str, Any] = {"output": {"from": "stdout"}}
    volume = {"volume": {"size": "8Mi", "mountPath": "/scratch"}}
    failing_once = f'note start; [ "$said" -gt 1 ] || exit 1; {plain.partition("; ")[2]}'
    found = [
        python("answers", "start.*", ANSWER, desk, onSuccess={"publish": "middle", "forwardReply": True}),
        script("fails", "*.here", "note start; echo on purpose >&2; exit 3", desk),
        script("prints", "start.>", f"echo kept > /scratch/file; {plain}", desk, **stdout, **volume),
        script("retries", "start.here", failing_once, desk, backoffLimit=1, **stdout),
        script("second", "middle", plain, desk, concurrency=4, **stdout),
    ]
    return write_catalog(root, *(one for one in found if one["metadata"]["name"] in (*chosen, "second")))


@dataclass
class PodWorkload(Workload):
    """Events published to `pod_catalog`, and everything that must come of them."""

    chosen: Collection[str] = ALL

    def requests(self) -> dict[str, tuple[str, ...]]:
        expected: dict[str, tuple[str, ...]] = {}
        for request_id in self.acknowledged:
            expected[request_id] = tuple(sorted(self.chosen))
            if "answers" in self.chosen:
                expected[wire.chained_id(wire.run_id_of(request_id, "answers"), "onSuccess")] = ("second",)
        return expected

    def answered_runs(self) -> set[str]:
        return {run_id for run_id, name in self.runs().items() if name != "answers"}

    def runs(self) -> dict[str, str]:
        """Every run that there must be, and its function."""
        return {wire.run_id_of(one, name): name for one, names in self.requests().items() for name in names}

    async def prove_jobs(self, desk: Desk) -> None:
        """Every run had exactly one Job, ever, and nothing of any of them is left. How many there ever were only an
        audit log tells, which a given cluster keeps to itself."""
        await desk.nothing_left()
        if desk.cluster.audit_log is None:
            return
        created = desk.created()
        assert created.keys() == self.runs().keys()
        assert {run: uids for run, uids in created.items() if len(uids) != 1} == {}

    async def _prove_result(self, result: Result, starts: list[float]) -> None:
        wanted = Reason.ERROR if result.function == "fails" else Reason.COMPLETED
        assert result.reason is wanted, (result.function, result.message)
        codes = [attempt.exit_code for attempt in result.attempts]
        assert codes == ATTEMPTS.get(result.function, [0]), (result.function, codes)
        await self.prove_starts(result, starts)
