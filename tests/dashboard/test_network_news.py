"""The browser of these tests hears nothing of the interfaces that other tests make and remove."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.dashboard import without_network_news

SOCKETS = """
import socket
socket.socket(socket.AF_INET).close()
try:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
except OSError as error:
    print("refused:", error.strerror)
else:
    print("hears of them")
"""


def test_a_program_without_network_news_has_no_netlink_socket_and_all_others() -> None:
    told = subprocess.run(
        [without_network_news.__file__, "-c", SOCKETS],
        env=dict(os.environ) | {without_network_news.PROGRAM_VARIABLE: sys.executable},
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert told.stdout == "refused: Address family not supported by protocol\n", told.stderr
