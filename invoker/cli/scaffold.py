"""What `invoker functions new` writes: a function that runs at once, with every field of its file explained."""

from __future__ import annotations

import json
import re
from pathlib import Path

from invoker import wire
from invoker.errors import InputRefusedError, TopicError

FUNCTION_YAML = """\
# What runs, for which events, within which limits.    Check it:  invoker functions check {folder}
# Lines that begin with '# ' and a field are optional; the values shown are examples or the defaults.
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata:
  name: {name}                # a-z, 0-9 and inner '-', unique in the catalog
  # labels: {{team: etl}}      # for lists and presets
  # annotations: {{owner: Ada}} # for people; nothing looks at them
spec:
  description: Greets whoever the event names
  subscriptions:              # one run for each event that at least one of them fits
    - topic: {name}           # '*' stands for one token, '>' for the rest: orders.*, orders.>
      # filter: {{exact: {{type: greeting}}}} # exact, prefix, suffix, all, any, not; over topic, id, type, headers …

  # --- what runs: runtime and handler; or command; or image (Kubernetes only); or a whole job
  runtime: python
  handler: main.handle        # file main.py beside this file, function handle
  # code: "def handle(event, context): return 'inline'" # instead of a file
  # image: ghcr.io/example/{name}:1 # a container image, on Kubernetes
  # command: [./run.sh, --fast] # instead of runtime: a program beside this file or on the path
  # args: [--verbose]         # more arguments for command or image
  # job: {{template: {{spec: {{containers: [{{name: function, image: busybox}}]}}}}}} # a whole Job spec

  # --- what goes in and out
  # parameters: [{{name: level, schema: {{type: integer, minimum: 1}}, default: 6}}] # publish --param level=9
  input:
    as: api                   # api: event["data"]; env: $INVOKER_INPUT_BASE64; file: $INVOKER_INPUT_FILE
    # schema: {{type: object}}  # JSON Schema, or the name of a file with one; checked before a run starts
  output:
    from: api                 # api: what the handler returns; stdout; termination: the file $INVOKER_TERMINATION_FILE
    # schema: {{type: string}}  # the same for what comes out
  # env: [{{name: GREETING, value: "Hello"}}] # environment variables; {{{{params.level}}}} is a parameter's value
  # onSuccess: {{publish: greeted}} # the output becomes the next event on that topic
  # onFailure: {{publish: failures}} # the problem becomes an event on that topic
  # keepLog: false            # the result holds the log's tail of runs that succeed, too

  # --- limits
  backoffLimit: 0             # further attempts after the first one fails
  timeoutSeconds: 60          # one attempt; without it there is no limit
  pendingTimeoutSeconds: 600  # how long a run may wait for its start
  ttlSecondsAfterFinished: 60 # how long the work folder (or the Job) is kept afterwards
  concurrency: 10             # runs at the same time; further ones wait
  # noRetryExitCodes: [2]     # exit codes after which no further attempt is made
  resources:
    limits: {{memory: 256Mi}}   # more than that is out-of-memory
  # volume: {{size: 1Gi, mountPath: /scratch}} # a fresh volume per attempt, on Kubernetes
  # pod: {{nodeSelector: {{disk: fast}}}} # where, as whom and beside what it runs, on Kubernetes
  # keepPod: false            # keep pod and volume until the TTL is over, on Kubernetes
"""

MAIN_PY = '''\
"""The function {name}: greets whoever the event names."""


def handle(event, context):
    """One call per event; what it returns is the output (text, bytes, or anything that JSON can hold).

    event["data"] is the event's data (parsed when it is JSON), event["topic"], event["headers"] and event["params"]
    say more; context.attempt counts from 1, context.workdir is a folder for temporary files,
    context.progress(40, "half way") shows, context.publish("topic", data) makes another event.
    An exception makes this attempt fail, with its message as the reason.
    """
    data = event["data"]
    name = data.get("name", "world") if isinstance(data, dict) else "world"
    return f"Hello, {{name}}!"
'''

EVENT = {"name": "Ada"}

RUN_SH = """\
#!/bin/sh
# The function {name}: greets whoever the event names.
#
# One call per event. The file $INVOKER_INPUT_FILE holds its data, $INVOKER_TOPIC is its topic, $INVOKER_PARAMS its
# parameters as a JSON object; the folder that this starts in is its own, and removed afterwards.
# What is written to standard output is the output, what is written to standard error is the log.
# An exit code other than 0 makes this attempt fail, with the last line of the log as the reason.
set -eu
echo "greeting whoever is in $INVOKER_INPUT_FILE" >&2
name=$(sed -n 's/.*"name": *"\\([^"]*\\)".*/\\1/p' "$INVOKER_INPUT_FILE")
echo "Hello, ${{name:-world}}!"
"""

PROGRAM_FILE = "run.sh"
_AS_PROGRAM = (
    (
        "  runtime: python\n  handler: main.handle        # file main.py",
        "  # runtime: python           # instead of command\n  # handler: main.handle      # file main.py",
    ),
    ("  # command: [./run.sh, --fast] # instead of runtime: a program", "  command: [./run.sh]         # a program"),
    ("    as: api  ", "    as: file "),
    ("    from: api   ", "    from: stdout"),
)
"""What differs in the file of a function that is a program."""


def files_of(name: str, folder: Path, *, is_program: bool = False) -> dict[str, str]:
    """The files of a new function, by name: a Python handler, or a program of any kind.

    Raises `TopicError` for a name that no function may have.
    """
    try:
        wire.check_function_name(name)
    except TopicError as error:
        near = re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-")
        is_usable = near and not wire.Names().is_reserved(near)
        raise TopicError(error.message, try_command=f"invoker functions new {near}" if is_usable else None) from error
    if wire.Names().is_reserved(name):
        raise InputRefusedError(f"the name {name!r} is Invoker's own", hint="topics of that name are reserved")
    text, event = FUNCTION_YAML.format(name=name, folder=folder), json.dumps(EVENT) + "\n"
    if not is_program:
        return {"function.yaml": text, "main.py": MAIN_PY.format(name=name), "event.json": event}
    for python, program in _AS_PROGRAM:
        text = text.replace(python, program, 1)
    return {"function.yaml": text, PROGRAM_FILE: RUN_SH.format(name=name), "event.json": event}


def write_function(name: str, catalog: Path, *, is_program: bool = False) -> dict[str, str]:
    """Write a new function's folder into the catalog folder and return its files. Nothing is ever overwritten.

    Raises `InputRefusedError` when the folder exists or cannot be written.
    """
    folder = catalog / name
    files = files_of(name, folder, is_program=is_program)
    if catalog.exists() and not catalog.is_dir():
        raise InputRefusedError(f"--catalog: {catalog} is no folder")
    try:
        catalog.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text)
        if is_program:
            (folder / PROGRAM_FILE).chmod(0o755)
    except FileExistsError as error:
        raise InputRefusedError(f"{folder} exists already; nothing was written", hint="choose another name") from error
    except OSError as error:
        raise InputRefusedError(f"cannot write {folder}: {error.strerror or error}") from error
    return files
