"""One process that the machine's fork server has started, as whoever supervises it sees it.

The connection to the server is the process's life: when it ends, because the supervisor is done or has died, the
process is killed with all that it has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from testbed.emulation.processes.fork_messages import SETTLED, Exited, Order, Refused, Signalled, Started, receive, send

SERVER_ENDED = "the fork server of this machine has ended"


def fork_server_socket(folder: Path) -> Path:
    """Where the fork server of this machine is asked."""
    return folder / "fork-server.sock"


def connected(server: Path) -> socket.socket:
    """A connection to the fork server that listens there, for who does not wait. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)
    try:
        connection.connect(str(server))
    except OSError as error:
        connection.close()
        raise OSError(error.errno, f"{SERVER_ENDED} ({error.strerror})") from error
    return connection


class ForkedProcess:
    """Ordered by its construction, the leader of a process group of its own; wait for `started` next.

    `on_exit(returncode)` is called once, in the event loop that ordered it, unless it could not be started.
    """

    def __init__(
        self,
        server: Path,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        output: Path,
        errors: Path | None = None,
        niceness: int = 0,
        heavy: bool = False,
        on_exit: Callable[[int], None] | None = None,
    ) -> None:
        """`env` is all of its environment; `output` takes its errors, too, unless `errors` is given. One that is
        `heavy` may have to wait until others have `settled`. Raises OSError."""
        self._on_exit = on_exit
        loop = asyncio.get_running_loop()
        self._pid: asyncio.Future[int] = loop.create_future()
        self._code: asyncio.Future[int] = loop.create_future()
        self._signals: deque[asyncio.Future[None]] = deque()
        with contextlib.ExitStack() as failing:
            self._server = failing.enter_context(connected(server))
            send(
                self._server,
                Order(tuple(arguments), dict(env), output.absolute(), errors and errors.absolute(), niceness, heavy),
            )
            loop.add_reader(self._server, self._hear)
            failing.pop_all()

    async def started(self) -> int:
        """Its process id. Raises what starting it raised, OSError for a program that is not there."""
        return await asyncio.shield(self._pid)

    def settled(self) -> None:
        """It is up, and takes no more than it always will."""
        if self.running:
            with contextlib.suppress(OSError):  # it has ended, which is heard next
                send(self._server, SETTLED)

    @property
    def running(self) -> bool:
        return not self._code.done()

    async def kill(self) -> None:
        """End the whole process group now, as `kill -9` does; returns when the signals are sent."""
        await self._signal(signal.SIGKILL)

    async def terminate(self, grace_s: float) -> None:
        """Ask it to end, then kill what is left after `grace_s`."""
        await self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), grace_s)
        await self.kill()
        await self.wait()

    async def wait(self) -> int:
        """Its exit code, negative for a signal."""
        return await asyncio.shield(self._code)

    async def _signal(self, number: signal.Signals) -> None:
        if self.running:
            sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._signals.append(sent)
            with contextlib.suppress(OSError):  # it has ended, which is heard next
                send(self._server, int(number))
            await sent

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            match receive(self._server):
                case Started(pid):
                    self._pid.set_result(pid)
                case Refused(error):
                    self._pid.set_exception(error)
                case Signalled():
                    _resolve(self._signals.popleft())
                case Exited(code):
                    self._end(code)
                case None:
                    # It was killed with the server whose child it was.
                    self._end(-signal.SIGKILL)

    def _end(self, code: int) -> None:
        asyncio.get_running_loop().remove_reader(self._server)
        self._server.close()
        was_started = not self._pid.done() or self._pid.exception() is None
        if not self._pid.done():
            was_started = False
            self._pid.set_exception(ChildProcessError(SERVER_ENDED))
        self._code.set_result(code)
        for sent in self._signals:
            _resolve(sent)
        if was_started and self._on_exit is not None:
            self._on_exit(code)


def _resolve(sent: asyncio.Future[None]) -> None:
    if not sent.done():
        sent.set_result(None)
