"""One controller as a process of its own, to be killed: settings from `INVOKER_…`, NATS from `NATS_URL`.

Ready is told by a file (first argument) that holds the HTTP address; SIGTERM stops it in an orderly way, SIGUSR1 makes
it write down what each of its tasks waits for.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from invoker.errors import InvokerError
from invoker.logs import configure_logs
from invoker.tracing_switch import traced
from trigger.app import Running, run_controller
from trigger.settings import load_settings, nats_options


async def _main(ready_file: Path) -> None:
    settings = load_settings()
    configure_logs("json", settings.log_level)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tell_tasks)

    def ready(running: Running) -> None:
        half = ready_file.with_suffix(".half")
        half.write_text(running.http_url)
        half.rename(ready_file)

    with traced("invoker-controller"):
        await run_controller(settings, nats_options(), ready=ready, stopping=stopping)


def _tell_tasks() -> None:
    for task in asyncio.all_tasks():
        print(f"task {task.get_name()} {task.cancelling()}", file=sys.stderr)
        task.print_stack(file=sys.stderr)
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        asyncio.run(_main(Path(sys.argv[1])))
    except InvokerError as refusal:
        print(f"{refusal.code}: {refusal.message}", file=sys.stderr)
        sys.exit(refusal.exit_code)
