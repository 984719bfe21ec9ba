#!/usr/bin/env python3
"""Becomes the program that PROGRAM_VARIABLE names, with no way to hear of network interfaces that come and go.

Why: a browser gives up what it is loading whenever an interface of the machine changes (ERR_NETWORK_CHANGED), and the
tests of the cluster and of docker-compose make and remove them all the time. A browser that gets no netlink socket
takes the network for one that never changes. The filter is inherited by all of its processes and ends with them.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from errno import EAFNOSUPPORT
from socket import AF_NETLINK

PROGRAM_VARIABLE = "PROGRAM_WITHOUT_NETWORK_NEWS"
"""In the environment, since whoever starts a browser gives it all of the arguments."""
NO_NEW_PRIVILEGES, SECCOMP, SECCOMP_FILTER = 38, 22, 2
SOCKET_CALL = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""The kernel's name of the architecture, and the number of socket(2) there: linux/audit.h, asm/unistd.h."""
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOWED, REFUSED = 0x7FFF0000, 0x00050000 | EAFNOSUPPORT


def netlink_filter(architecture: int, call: int) -> bytes:
    """A program for the kernel: socket(AF_NETLINK, …) is refused as unknown, all other calls are allowed."""
    # Offsets in struct seccomp_data: 0 the call's number, 4 the architecture, 16 the first argument's lower half.
    lines = [
        (LOAD, 0, 0, 4), (JUMP_IF_EQUAL, 0, 5, architecture),
        (LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 3, call),
        (LOAD, 0, 0, 16), (JUMP_IF_EQUAL, 0, 1, AF_NETLINK), (RETURN, 0, 0, REFUSED),
        (RETURN, 0, 0, ALLOWED),
    ]  # fmt: skip
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def refuse_netlink() -> None:
    """From here on this process, and what it becomes or starts, gets no netlink socket. Raises `OSError`."""
    program = netlink_filter(*SOCKET_CALL[platform.machine()])
    text = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many instructions, and where they are.
    pointer = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(text)))
    kernel = ctypes.CDLL(None, use_errno=True)
    for arguments in ((NO_NEW_PRIVILEGES, 1, 0), (SECCOMP, SECCOMP_FILTER, pointer)):
        if kernel.prctl(*arguments, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    if platform.machine() in SOCKET_CALL:
        refuse_netlink()
    program = os.environ[PROGRAM_VARIABLE]
    os.execv(program, [program, *sys.argv[1:]])
