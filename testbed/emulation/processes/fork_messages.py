"""What a machine's fork server and those who ask it send each other: pickles, in packets of a Unix socket (SEQPACKET).

A connection is for one process. Its first packet is an `Order`, each further one `SETTLED` or the number of a signal
for the whole process group. Answers are `Started` or `Refused`, `Signalled` for each signal, and `Exited`. With the
connection the process ends, too. The socket lies in a folder that is closed to other users, so nobody else can send
anything.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKET_BYTES_MAX = 1 << 18
"""More than a Unix socket takes as one packet, unless an administrator has made that more."""

OWN = "own"
"""What the owner of the fork server says, once and again: it is answered by the same. With that connection ends all."""


SETTLED = "settled"
"""A heavy process is up: the next one may start."""


@dataclass(frozen=True, slots=True)
class Order:
    """A program to start, with all of its environment. `output` takes its errors, too, unless `errors` is given.

    Of those that are `heavy`, which take a core for a while when they start, only some start at once.
    """

    arguments: tuple[str, ...]
    env: Mapping[str, str]
    output: Path
    errors: Path | None
    niceness: int
    heavy: bool


@dataclass(frozen=True, slots=True)
class Started:
    pid: int


@dataclass(frozen=True, slots=True)
class Refused:
    """It could not be started."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Signalled:
    """The signal is sent."""


@dataclass(frozen=True, slots=True)
class Exited:
    """It is waited for; the code is negative for a signal. What was left of its group is killed."""

    code: int


def send(connection: socket.socket, message: Any) -> None:
    """Without waiting. Raises OSError, also for what is too large for one packet."""
    connection.send(pickle.dumps(message), socket.MSG_DONTWAIT)


def receive(connection: socket.socket) -> Any:
    """The next message, None at the end of the connection. Raises BlockingIOError where there is none yet."""
    try:
        packet = connection.recv(PACKET_BYTES_MAX)
    except ConnectionError:
        return None
    return pickle.loads(packet) if packet else None
