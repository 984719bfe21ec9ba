"""The keeper: what the engine starts, the parent of the spawners. It does nothing but wait.

Standard library only. Why not `PR_SET_PDEATHSIG` in every attempt: it can only be set between fork and exec, which
rules out `posix_spawn` and costs half the rate (`benchmarks/process_start.py`), and it would not reach what an attempt
has forked. Instead processes guard each other: keeper and spawners are subreapers, so whatever an attempt leaves behind
becomes the child of its spawner, or, when that is gone, of the keeper. Whichever of engine, spawner and keeper dies,
one of the others sees a closed pipe and ends everything below itself.
"""

from __future__ import annotations

import os
import select
import socket
import time

from trigger.local_engine.descendants import become_subreaper, end_all_below, kill
from trigger.local_engine.spawner import Spawner

PATIENCE_SECONDS = 2.0


def main(control_fds: list[int]) -> None:
    """Become the keeper and start one spawner below for each socket. All of them end when the engine's ends close."""
    become_subreaper()
    os.umask(0o022)
    for fd in control_fds:
        os.set_inheritable(fd, False)
    keeper_lives, keeper_holds = os.pipe()
    spawners = {}
    for control in control_fds:
        spawner_lives, spawner_holds = os.pipe()
        pid = os.fork()
        if not pid:
            for fd in (keeper_holds, spawner_lives, *(one for one in control_fds if one != control)):
                os.close(fd)
            become_subreaper()
            Spawner(socket.socket(fileno=control), keeper_lives).run()
            os._exit(0)
        os.close(spawner_holds)
        spawners[spawner_lives] = pid
    os.close(keeper_lives)
    keep(spawners, control_fds)
    os._exit(0)


def keep(spawners: dict[int, int], controls: list[int]) -> None:
    """The keeper's life: wait until the engine or a spawner is gone, then end everything below.

    `spawners` has, for the reading end of a pipe that a spawner holds open, its process id; `controls` are the
    spawners' sockets to the engine, only looked at for their hang-up. The keeper holds them open until the end, so the
    engine sees them close when nothing lives any more.
    """
    poller = select.poll()
    for control in controls:
        poller.register(control, getattr(select, "POLLRDHUP", select.POLLHUP))
    for lives in spawners:
        poller.register(lives, select.POLLIN)
    seen = {fd for fd, _ in poller.poll()}
    if not seen & spawners.keys():
        _wait_for(spawners)
    for pid in spawners.values():
        kill(pid)
    end_all_below([])


def _wait_for(spawners: dict[int, int]) -> None:
    """The engine is gone. The spawners see that themselves and know best what to end; one that hangs is not waited for
    longer than 2 s."""
    poller = select.poll()
    for lives in spawners:
        poller.register(lives, select.POLLIN)
    left = len(spawners)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left and (seconds := deadline - time.monotonic()) > 0:
        for fd, _ in poller.poll(seconds * 1000):
            poller.unregister(fd)
            left -= 1
