"""What a link relay's process and those who ask it send each other over a Unix socket.

A message is its length and a pickle: number, method and arguments of a question, number, answer and exception of what
comes back. The socket lies in a folder that is closed to other users, so nobody else can send one.
"""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import dataclass
from ipaddress import IPv4Network
from struct import Struct
from typing import Any

from testbed.network.wire.tunnel import Tunnel
from testbed.objects.addresses import SocketAddress

_LENGTH = Struct("!I")


@dataclass(frozen=True, slots=True)
class PathTo:
    """The arguments of `Attachment.open_path`."""

    destination: str
    listen: SocketAddress
    network: IPv4Network
    tunnel: Tunnel | None


async def read_message(reader: asyncio.StreamReader) -> Any:
    """Raises IncompleteReadError at the end of the connection."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return pickle.loads(await reader.readexactly(length))


def write_message(writer: asyncio.StreamWriter, message: object) -> None:
    data = pickle.dumps(message)
    writer.write(_LENGTH.pack(len(data)) + data)
