"""The Kubernetes engine: one Job per run, behind the seam of `trigger.engine`.

engine.py        KubernetesEngine: the seam; owns the known runs and their levels
run.py           one known run: its Job, its pods, what is under way for it
hearing.py       what is heard of a run while it runs: its stdout is counted, its last words are kept
evidence.py      what is read of its last pod once it has ended
conclusion.py    what has to be read of a run that has ended, and the end that is made of it

Pure, no I/O and no clock:
names.py         names, labels, annotations, selectors
terms.py         the part of a plan that a Job carries along, so that any controller can judge it
manifest.py      a plan → the Job; job_spec.py: a function's own `job:` under the forced settings
code_map.py      a function's code → an immutable ConfigMap
policy.py        what a Job may contain; images.py: which images it may name; admission.py: asked once a version
status.py        a Job, a pod of the API server → small values
attempts.py      pods → attempts, each with its reason
assess.py        a run's Job and pods → its level, what to do, and when to look again
wholeness.py     whether what was read of a log is all that was printed
failures.py      an answer of the API server → what it means, in words

At the edge:
access.py        kubeconfig or service account → a session with the API server
api.py           the calls, with their repetitions; raw bytes in and out
watch.py         list, then watch, and list again: a mirror of what the API server has
code_store.py    the ConfigMaps of code: made when needed, removed when nothing uses them
log.py           logs of pods, as lines and as a tail

`KubernetesEngine` is loaded on first use: the package `kubernetes` is an extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trigger.kubernetes_engine.engine import KubernetesEngine

__all__ = ["KubernetesEngine"]


def __getattr__(name: str) -> Any:
    if name != "KubernetesEngine":
        raise AttributeError(f"module 'trigger.kubernetes_engine' has no attribute {name!r}")
    from trigger.kubernetes_engine.engine import KubernetesEngine

    return KubernetesEngine
