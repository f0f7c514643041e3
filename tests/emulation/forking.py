"""A fork server for tests that need no machine around it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.emulation.processes.fork_messages import OWN, receive, send
from testbed.emulation.processes.forked_process import fork_server_socket

PROGRAM = (sys.executable, "-m", "testbed.emulation.processes.fork_server_process")


@contextmanager
def forking(folder: Path) -> Iterator[Path]:
    """It listens in the folder, at the path that is given, and has ended with all that it started afterwards."""
    path = fork_server_socket(folder)
    with (folder / "fork-server.log").open("ab") as log:
        subprocess.run([*PROGRAM, str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as owner:
        owner.connect(str(path))
        send(owner, OWN)
        assert receive(owner) == OWN
        yield path
        owner.shutdown(socket.SHUT_WR)
        assert receive(owner) is None
