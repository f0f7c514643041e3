"""The process that starts containers, proxies and commands of probes, for all supervisors of its machine.

It is small and has one thread, so forking it is cheap and sound. It has imported the built-in workload: a container
that is to run that is a fork which goes on from there, instead of an interpreter that starts. It alone waits for its
children and signals them, so no number of a process that has ended is taken for another one.

What it is asked is in `fork_messages`; `fork_server` is its owner, `forked_process` everybody else's end.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from testbed.emulation.processes.container import BUILTIN_COMMAND
from testbed.emulation.processes.fork_messages import (
    OWN,
    SETTLED,
    Exited,
    Order,
    Refused,
    Signalled,
    Started,
    receive,
    send,
)

BACKLOG = 4096
STARTING_A_CORE = 6
"""Heavy processes that start at once. With hundreds of them everybody would wait for a core for longer than probes wait
for an answer; some of these few wait for what they are told."""
SETTLES_WITHIN_S = 3.0
"""Who takes longer holds up no other."""
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
_STAT_ARG_START, _STAT_ARG_END = 45, 46
"""Of the fields in /proc/self/stat, counted from the one behind the name: where the kernel reads the command line."""
_libc = ctypes.CDLL(None, use_errno=True)


class _Visit:
    """A connection, and the process that it is for: from `pid` on there is one, as long as it has not `ended`."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.owns = False
        self.pid: int | None = None
        self.starting: int | None = None
        """The pipe by which the child says what went wrong, and that it has become what it is to be by closing it."""
        self.ended = False

    def answer(self, message: object) -> None:
        try:
            send(self.connection, message)
        except OSError:
            # It has gone, or has read nothing of hundreds of packets.
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def signal(self, number: int) -> None:
        """To the group; it outlives its leader when that left children behind."""
        if self.pid is not None and not self.ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


Forked = tuple[Order, int]
"""In a child: what it is to become, and its end of the pipe to the server."""


class _Server:
    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._ready = select.epoll()
        self._handlers: dict[int, Callable[[], Forked | None]] = {}
        self._visits: set[_Visit] = set()
        self._waiting: dict[_Visit, Order] = {}
        """Heavy ones, in their order."""
        self._settling: dict[_Visit, float] = {}
        """Those that have started, and when."""
        self._starting_max = STARTING_A_CORE * len(os.sched_getaffinity(0))
        self._handle(listening.fileno(), self._accept)

    def serve(self) -> Forked:
        """Returns in every child, and nowhere else."""
        while True:
            forked = self._start_waiting()
            # One at a time, since what is done for one may be the end of another.
            ready = () if forked else self._ready.poll(SETTLES_WITHIN_S if self._waiting else None, maxevents=1)
            for descriptor, _ in ready:
                forked = self._handlers[descriptor]()
            if forked is not None:
                return forked

    def _handle(self, descriptor: int, handler: Callable[[], Forked | None]) -> None:
        self._handlers[descriptor] = handler
        self._ready.register(descriptor, select.EPOLLIN)

    def _forget(self, descriptor: int) -> None:
        """Before it is closed."""
        del self._handlers[descriptor]
        self._ready.unregister(descriptor)

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        visit = _Visit(connection)
        self._visits.add(visit)
        self._handle(connection.fileno(), partial(self._hear, visit))

    def _hear(self, visit: _Visit) -> Forked | None:
        match receive(visit.connection):
            case Order(heavy=True) as order:
                self._waiting[visit] = order
            case Order() as order:
                return self._fork(visit, order)
            case str(said) if said == SETTLED:
                self._settling.pop(visit, None)
            case int() as number:
                # One that waits yet is to see how it ends, as any other.
                if visit in self._waiting and (forked := self._fork(visit, self._waiting.pop(visit))) is not None:
                    return forked
                visit.signal(number)
                visit.answer(Signalled())
            case str(said) if said == OWN:
                visit.owns = True
                visit.answer(OWN)
            case None:
                self._part(visit)
        return None

    def _part(self, visit: _Visit) -> None:
        """Nobody supervises it any more."""
        visit.signal(signal.SIGKILL)
        self._forget(visit.connection.fileno())
        visit.connection.close()
        self._visits.discard(visit)
        self._waiting.pop(visit, None)
        if visit.owns:
            for other in self._visits:
                other.signal(signal.SIGKILL)
            os._exit(0)

    def _start_waiting(self) -> Forked | None:
        now_s, forked = time.monotonic(), None
        if self._waiting:
            self._settling = {each: at_s for each, at_s in self._settling.items() if now_s < at_s + SETTLES_WITHIN_S}
        while self._waiting and forked is None and len(self._settling) < self._starting_max:
            visit = next(iter(self._waiting))
            self._settling[visit] = now_s
            forked = self._fork(visit, self._waiting.pop(visit))
        return forked

    def _fork(self, visit: _Visit, order: Order) -> Forked | None:
        reading, writing = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(reading)
            os.close(writing)
            visit.answer(Refused(error))
            return None
        if pid == 0:
            self._leave_to_parent()
            os.close(reading)
            return order, writing
        os.close(writing)
        # The child does so as well: whoever comes first, it has a group of its own before it can be signalled.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        visit.pid, visit.starting = pid, reading
        self._handle(reading, partial(self._started, visit))
        ended = os.pidfd_open(pid)
        self._handle(ended, partial(self._reap, visit, ended))
        return None

    def _started(self, visit: _Visit) -> None:
        assert visit.starting is not None
        assert visit.pid is not None
        failure = os.read(visit.starting, 1 << 16)
        self._forget(visit.starting)
        os.close(visit.starting)
        visit.starting = None
        visit.answer(Refused(pickle.loads(failure)) if failure else Started(visit.pid))

    def _reap(self, visit: _Visit, ended: int) -> None:
        assert visit.pid is not None
        if visit.starting is not None:
            self._started(visit)
        self._forget(ended)
        os.close(ended)
        # Before it is waited for, as long as nobody else can have its number.
        visit.signal(signal.SIGKILL)
        visit.ended = True
        self._settling.pop(visit, None)
        _, status = os.waitpid(visit.pid, 0)
        visit.answer(Exited(os.waitstatus_to_exitcode(status)))

    def _leave_to_parent(self) -> None:
        """Close in a child what is the server's."""
        for visit in self._visits:
            visit.connection.close()
        self._listening.close()
        self._ready.close()
        self._visits.clear()
        self._handlers.clear()


def _become(order: Order, started: int, server: int) -> None:
    """What the child is to be; returns in one that has the built-in workload to run."""
    try:
        os.setpgid(0, 0)
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(1)
        os.nice(order.niceness)
        _open_files(order, started)
        if order.arguments != BUILTIN_COMMAND:
            _execute(order)
        os.environ.clear()
        os.environ.update(order.env)
        sys.argv = list(order.arguments[2:])
        _name_process(f"{' '.join(order.arguments)} {order.env.get('POD_NAME', '')}", order.env.get("POD_NAME", "pod"))
    except Exception as error:
        os.write(started, pickle.dumps(error))
        os._exit(1)
    os.close(started)


def _open_files(order: Order, kept: int) -> None:
    appending = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(order.output, appending, 0o666), 1)
    os.dup2(1 if order.errors is None else os.open(order.errors, appending, 0o666), 2)
    # Pipes to the server of other children that are starting, and what was just opened.
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _execute(order: Order) -> None:
    """Raises what `subprocess` would."""
    # Python ignores these for itself; an interpreter's own interrupt handler is gone with it.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(order.arguments[0], order.arguments, order.env)
    except OSError as error:
        raise OSError(error.errno, error.strerror, order.arguments[0]) from None


def _name_process(command_line: str, name: str) -> None:
    """What `ps` and `top` show, where it fits in: the kernel reads it from where the server's own command line was."""
    _libc.prctl(PR_SET_NAME, name.encode()[:15])
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, room = int(fields[_STAT_ARG_START]), int(fields[_STAT_ARG_END]) - int(fields[_STAT_ARG_START])
    words = command_line.encode(errors="surrogateescape")[: room - 1].replace(b" ", b"\0")
    ctypes.memmove(start, words.ljust(room, b"\0"), room)


def main() -> None:
    """Listen at the path that is the argument, and return as soon as that is so: the server is a fork which goes on.

    Whoever connects before all is imported is kept by the kernel.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(sys.argv[1])
    listening.listen(BACKLOG)
    if os.fork():
        return
    # Where the kernel shares cores out by session first, all that is emulated is one.
    os.setsid()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    from testbed.workloads import builtin

    # Looking through what was imported would copy it in every child.
    gc.freeze()
    server = os.getpid()
    order, started = _Server(listening).serve()
    _become(order, started, server)
    builtin.main()


if __name__ == "__main__":
    main()
