"""One child process that dies with its parent, whatever ends the parent.

Owns starting, watching and killing, of one child or of all that a process has left. Knows nothing of what they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from testbed.network.wire.scheduling import ask_to_be_punctual

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None)


class ChildProcess:
    """A running child, the leader of a process group of its own.

    `on_exit(returncode)` is called once, in the event loop that started it. PR_SET_PDEATHSIG is bound to the thread
    that forks, so start it from a thread that lives as long as the process: an actor's event loop.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        output: Path,
        on_exit: Callable[[int], None] | None = None,
        errors: Path | None = None,
        pipes: bool = False,
        niceness: int = 0,
        punctual: bool = False,
        own_session: bool = False,
        inherited: Sequence[int] = (),
    ) -> None:
        """`output` takes standard output (and errors, unless `errors` is given); `pipes` makes stdin and stdout pipes.

        `punctual` is for a child whose lateness would be measured. Where the kernel shares cores out by session first
        (autogroup), `own_session` is a share of the child's own, whatever its niceness. The descriptors in `inherited`
        are open in it, by the same numbers. Raises OSError when the program cannot be started.
        """
        parent = os.getpid()

        def die_with_parent() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            os.nice(niceness)
            if punctual:
                ask_to_be_punctual()

        with contextlib.ExitStack() as files:
            log: IO[bytes] = files.enter_context(output.open("ab"))
            error_log = log if errors is None else files.enter_context(errors.open("ab"))
            self._popen = subprocess.Popen(
                list(arguments),
                env=dict(env),
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else log,
                stderr=error_log,
                # Niceness counts within one session only: one of its own is for who measures, not for the measured.
                start_new_session=punctual or own_session,
                process_group=None if punctual or own_session else 0,
                preexec_fn=die_with_parent,
                pass_fds=inherited,
            )
        self._on_exit = on_exit
        self._exited = asyncio.Event()
        self._pidfd = os.pidfd_open(self._popen.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return not self._exited.is_set()

    @property
    def stdin(self) -> IO[bytes]:
        assert self._popen.stdin is not None, "started without pipes"
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self._popen.stdout is not None, "started without pipes"
        return self._popen.stdout

    def kill(self) -> None:
        """End the whole process group now, as `kill -9` does."""
        self._signal(signal.SIGKILL)

    async def terminate(self, grace_s: float) -> None:
        """Ask it to end, then kill what is left after `grace_s`."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._exited.wait(), grace_s)
        self.kill()
        await self._exited.wait()

    async def wait(self) -> int:
        await self._exited.wait()
        assert self._popen.returncode is not None
        return self._popen.returncode

    def _signal(self, number: signal.Signals) -> None:
        # The group outlives its leader when the program left children behind, so it is signalled in any case.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._popen.wait()
        self._signal(signal.SIGKILL)
        self._exited.set()
        if self._on_exit is not None:
            self._on_exit(code)


def last_lines(path: Path, count: int = 3) -> str:
    """The last non-empty lines of a log file, joined by ` | `: what a person needs to see of a program that died."""
    if not path.exists():
        return ""
    lines = [line.strip() for line in path.read_bytes()[-4096:].decode(errors="replace").splitlines()]
    return " | ".join([line for line in lines if line][-count:])


def adopt_orphans(adopt: bool = True) -> None:
    """From now on, descendants of this process whose parents have ended become its children (see prctl(2)), or not."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, int(adopt)) != 0:
        raise OSError("this kernel has no PR_SET_CHILD_SUBREAPER")


def kill_descendants(deadline_s: float = 30.0) -> None:
    """Kill all descendants of this process, which has adopted orphans, until none is left."""

    @retry(
        stop=stop_after_delay(deadline_s),
        wait=wait_fixed(0.02),
        retry=retry_if_result(bool),
        retry_error_callback=lambda _: None,
    )
    def sweep() -> bool:
        found = psutil.Process().children(recursive=True)
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # Those that have ended are children by now, and are there until they are waited for.
        psutil.wait_procs(found, timeout=0.0)
        return bool(found)

    sweep()


def kill_marked(variable: str, value: str, deadline_s: float = 5.0) -> int:
    """Kill every process whose environment has `variable=value` until none is left; returns how many there were."""
    marker = f"{variable}={value}".encode()
    killed: set[int] = set()

    @retry(
        stop=stop_after_delay(deadline_s),
        wait=wait_fixed(0.1),
        retry=retry_if_result(bool),
        retry_error_callback=lambda _: None,
    )
    def sweep() -> bool:
        found = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _has_marker(pid, marker)]
        for pid in found:
            killed.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return bool(found)

    sweep()
    return len(killed)


def _has_marker(pid: int, marker: bytes) -> bool:
    if pid == os.getpid():
        return False
    try:
        return marker in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
