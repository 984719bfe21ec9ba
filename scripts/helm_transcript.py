"""Records the life of a Helm release, for docs/install.md: installed, tested, used, upgraded, rolled back, removed.

    python scripts/helm_transcript.py NAMESPACE           prints it
    python scripts/helm_transcript.py NAMESPACE --write   puts it on the page

It needs `helm` and `kubectl` with a kubeconfig, and the images that the chart names where the cluster's nodes find
them. The namespace is there already; it is called `invoker` in what is printed. Dates and durations, which differ every
time, are shown as `…`; nothing else is changed.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "install.md"
SHOWN_NAMESPACE = "invoker"
OURS = "app.kubernetes.io/instance=invoker"
FORWARD = "kubectl --namespace NAMESPACE port-forward service/invoker-gateway 8080:80 >/dev/null &"
KEY = "kubectl --namespace NAMESPACE get secret invoker-admin-key --output jsonpath='{.data.key}' | base64 --decode"
COMMANDS = (
    "helm install invoker charts/invoker --namespace NAMESPACE --wait",
    "kubectl --namespace NAMESPACE get deployments,statefulsets,poddisruptionbudgets",
    "helm test invoker --namespace NAMESPACE --logs",
    FORWARD,
    f'export INVOKER_GATEWAY_URL=http://127.0.0.1:8080 INVOKER_GATEWAY_KEY="$({KEY})"',
    "invoker publish chart.test 'hello' --wait 60",
    "helm upgrade invoker charts/invoker --namespace NAMESPACE --reset-then-reuse-values --set controller.replicas=3"
    " --hide-notes --wait",
    "kubectl --namespace NAMESPACE get deployment invoker-controller",
    "helm rollback invoker 1 --namespace NAMESPACE --wait",
    "helm history invoker --namespace NAMESPACE",
    "helm uninstall invoker --namespace NAMESPACE --wait",
    f"kubectl --namespace NAMESPACE wait --for=delete pods --selector {OURS} --timeout=60s >/dev/null",
    f"kubectl --namespace NAMESPACE get deployments,statefulsets,services,pods --selector {OURS}",
    "kubectl --namespace NAMESPACE get secrets,persistentvolumeclaims --output name",
)
SETTLED = {
    COMMANDS[0]: "kubectl --namespace NAMESPACE wait poddisruptionbudgets --all --timeout=60s"
    " --for=jsonpath='{.status.disruptionsAllowed}'=1",
}
"""What is waited for after a command, unseen: a budget counts the pods a moment after they are ready."""
_PART = re.compile(r"(<!-- recorded: helm[^>]* -->\n```text\n).*?(```)", re.DOTALL)
_DIFFERS = (
    (re.compile(r"(\d\d\d\d-\d\d-\d\d|\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w+ +\d+) [\d:.]+( [+\d]+)?( \w+ \d{4})?"), "…"),
    (re.compile(r"\b\d[\d.]* (ms|s)\b"), "…"),
    (re.compile(r" +\d+m?\d*s$", re.MULTILINE), "   …"),
)


class Shell:
    """One bash that runs the commands one after the other, as a person's would."""

    def __init__(self, folder: str) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=folder, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, command: str) -> list[str]:
        """What it prints, which need not end with a line's end. Raises `SystemExit` when it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\nprintf '\\nended:%s\\n' $?\n")
        self._process.stdin.flush()
        lines = []
        for line in self._process.stdout:
            if line.startswith("ended:"):
                if line != "ended:0\n":
                    raise SystemExit(f"{command} ended with {line[6:]}{''.join(lines)}")
                return lines
            lines.append(line)
        raise SystemExit(f"the shell ended at {command}")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("kill $(jobs -p)\n")
        self._process.stdin.close()
        self._process.wait()


def recorded(namespace: str) -> str:
    """The transcript."""
    port = _free_port()
    shown: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "charts").symlink_to(ROOT / "charts")
        shell = Shell(folder)
        try:
            shell.run(f'export NO_COLOR=1 PATH="{Path(sys.executable).parent}:$PATH"')
            for command in COMMANDS:
                printed = shell.run(command.replace("NAMESPACE", namespace).replace("8080", str(port)))
                if command in SETTLED:
                    shell.run(SETTLED[command].replace("NAMESPACE", namespace))
                if command is FORWARD:
                    shell.run(f"until (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.1; done")
                text = "".join(printed).replace(namespace, SHOWN_NAMESPACE)
                shown += [f"$ {command.replace('NAMESPACE', SHOWN_NAMESPACE)}", *as_shown(text).splitlines(), ""]
        finally:
            shell.close()
    return "\n".join(shown)


def as_shown(text: str) -> str:
    """What is printed, with `…` for what is another thing every time. Pure."""
    for pattern, word in _DIFFERS:
        text = pattern.sub(word, text)
    return "\n".join(line.replace("\t", " ").rstrip() for line in text.strip().splitlines())


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main(arguments: list[str]) -> int:
    places = [one for one in arguments if not one.startswith("-")]
    if len(places) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    text = recorded(places[0])
    if "--write" not in arguments:
        print(text, end="")
        return 0
    PAGE.write_text(_PART.sub(lambda found: found[1] + text + found[2], PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
