"""Ways to start a process from a small one, and what each costs: why the spawner uses `posix_spawn`.

    python benchmarks/process_start.py [--runs 1000] [--rounds 7]

Each way starts `/bin/true` with 1, 2 and 8 at once from a fresh `python -I -S`, as the spawner is; the ways take turns,
the median of the rounds is printed, and its ratio to the first. `fork, death signal` is what would be needed for
`PR_SET_PDEATHSIG`; `setpriv` has a second program do it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys

PROGRAM = """
import ctypes, json, os, sys, time
way, runs, parallel = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
libc = ctypes.CDLL(None)
def spawn(*before):
    command = [*before, '/bin/true']
    return os.posix_spawn(command[0], command, {}, setsid=True)
def fork(death_signal):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if death_signal:
            libc.prctl(1, 9, 0, 0, 0)
        os.execve('/bin/true', ['/bin/true'], {})
    return pid
start = {
    'posix_spawn': spawn,
    'fork': lambda: fork(False),
    'fork, death signal': lambda: fork(True),
    'setpriv': lambda: spawn('/usr/bin/setpriv', '--pdeathsig', 'KILL'),
}[way]
alive = started = 0
began = time.perf_counter()
while started < runs or alive:
    while alive < parallel and started < runs:
        start(); alive += 1; started += 1
    os.waitpid(-1, 0); alive -= 1
print(runs / (time.perf_counter() - began))
"""

WAYS = ["posix_spawn", "fork", "fork, death signal", "setpriv"]


def rate(way: str, runs: int, parallel: int) -> float:
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, way, str(runs), str(parallel)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ways = WAYS if shutil.which("/usr/bin/setpriv") else WAYS[:-1]
    rows = {}
    for parallel in (1, 2, 8):
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(arguments.rounds):
            for way in ways if number % 2 else reversed(ways):
                rates[way].append(rate(way, arguments.runs, parallel))
        rows[parallel] = {way: statistics.median(measured) for way, measured in rates.items()}
    if arguments.json:
        print(json.dumps(rows))
        return
    print(f"{'at once':>8}  " + "".join(f"{way:>26}" for way in ways))
    for parallel, medians in rows.items():
        shares = [f"{value:.0f}/s ({value / medians[ways[0]]:.2f})" for value in medians.values()]
        print(f"{parallel:>8}  " + "".join(f"{share:>26}" for share in shares))


if __name__ == "__main__":
    main()
