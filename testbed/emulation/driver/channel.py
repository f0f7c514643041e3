"""How a cluster that is up is asked from another terminal: a Unix socket, a line of JSON there and a line back.

Owns the form of both, who may ask (the same user, by the kernel's word), and that both are the same version of testbed.
What can be asked is `commands`'.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

PROTOCOL = 1
"""Raised with what the other side would misread."""
LONGEST_LINE_BYTES = 64 << 20
_CREDENTIALS = struct.Struct("3i")
"""Of SO_PEERCRED: pid, uid, gid."""

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Unreachable(Exception):
    """Nobody listens there (yet, or any more)."""


class Declined(Exception):
    """The cluster does not do what it was asked; the message says why."""


def _version() -> str:
    return f"testbed {importlib.metadata.version('testbed')}, protocol {PROTOCOL}"


def ask(path: Path, command: str, **arguments: Any) -> dict[str, Any]:
    """Ask and wait for the answer, however long it takes. Raises Unreachable or Declined."""
    request = {"version": _version(), "command": command, **arguments}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            with _short(path) as short:
                connection.connect(short)
            connection.sendall(orjson.dumps(request, option=orjson.OPT_APPEND_NEWLINE))
            with connection.makefile("rb") as lines:
                line = lines.readline()
        except OSError as error:
            raise Unreachable(str(error)) from error
    if not line.endswith(b"\n"):
        raise Unreachable("it ended before it had answered")
    reply: dict[str, Any] = orjson.loads(line)
    if "declined" in reply:
        raise Declined(reply["declined"])
    return reply


@contextlib.asynccontextmanager
async def listening(path: Path, answer: Answer) -> AsyncIterator[None]:
    """During the block `answer` is given what is asked; it may raise Declined. Answers under way end with the block."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short(path) as short:
        listener.bind(short)
    path.chmod(0o600)
    under_way: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            with contextlib.suppress(ConnectionError, ValueError):  # of who went away, or sends no end of a line
                if line := await reader.readline():
                    writer.write(orjson.dumps(await _reply(writer, line, answer), option=orjson.OPT_APPEND_NEWLINE))
                    await writer.drain()
        finally:
            under_way.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(serve, sock=listener, limit=LONGEST_LINE_BYTES)
    try:
        yield
    finally:
        server.close()
        if under_way:
            await asyncio.wait(set(under_way), timeout=1.0)
        for task in list(under_way):
            task.cancel()


async def _reply(writer: asyncio.StreamWriter, line: bytes, answer: Answer) -> dict[str, Any]:
    credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    if uid != os.getuid():
        return {"declined": "only the user whose cluster it is may ask"}
    try:
        request = orjson.loads(line)
        theirs = request.get("version")
    except (ValueError, AttributeError):
        return {"declined": "what was asked is no JSON object"}
    if theirs != _version():
        return {"declined": f"the cluster was brought up by {_version()}; this is {theirs}"}
    try:
        return await answer(request)
    except Declined as declined:
        return {"declined": str(declined)}


@contextlib.contextmanager
def _short(path: Path) -> Any:
    """A name of the socket that fits into an address, wherever its folder is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
