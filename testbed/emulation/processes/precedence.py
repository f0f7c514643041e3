"""Who goes first where cores are short: who measures, then what is measured, then who supervises it.

Emulated machines have cores of their own for their proxies and programs; here these share a few with the testbed's
actors. A push of configuration has dozens of those busy for a moment, each for milliseconds, and requests would wait
for them on every hop: it would look as if the platform were slow whenever its control plane has something to do.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from testbed.network.wire.scheduling import ask_for_a_small_share, ask_to_be_punctual

EMULATED_NICENESS = 5
"""Of containers and proxies."""
SUPERVISING_NICENESS = 10
"""Of actors and of the control plane's process."""
SESSION_NICENESS = 7
"""Of the session of a run's own Ray: a sixth of a machine that has nothing to spare. What is late by it is measured
(`lateness`)."""
STARTING_NICENESS = 10
"""Of the session of a load process until it could send: loading Locust takes seconds of a core, for each zone, while
the cluster is up. At the precedence with which it sends, nothing else ran meanwhile: leaders were not heard of, leases
ran out, and the first seconds of load were not those of a cluster at rest."""


def session_gives_way() -> None:
    """Let all other sessions of the machine go before the one of this process, for good.

    Best effort: only where the kernel shares cores out by session (sched(7), "The autogroup feature"). It counts beside
    the niceness of its threads.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(SESSION_NICENESS))


def process_gives_way() -> None:
    """Niceness for each thread of this process, and for all that they start: of the others of its session, or of the
    machine, where the kernel does not share cores out by session."""
    for thread in map(int, os.listdir("/proc/self/task")):
        with contextlib.suppress(ProcessLookupError):
            niceness = max(SUPERVISING_NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
            if not ask_for_a_small_share(thread, niceness):
                os.setpriority(os.PRIO_PROCESS, thread, niceness)


async def starting_gives_way(pid: int) -> None:
    """Let that process go last while it starts. It leads a session of its own."""
    await _share_out(pid, STARTING_NICENESS)


async def started_goes_first(pid: int) -> None:
    """From now on the lateness of that process would be measured. It leads a session of its own."""
    await _share_out(pid, 0)
    with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile, which its supervisor is told
        for thread in map(int, os.listdir(f"/proc/{pid}/task")):
            ask_to_be_punctual(thread)


async def _share_out(pid: int, niceness: int) -> None:
    """Best effort, as `session_gives_way`."""

    # Users may do so ten times a second, all together.
    @retry(
        retry=retry_if_exception_type(BlockingIOError), wait=wait_fixed(0.05), stop=stop_after_delay(5.0), reraise=True
    )
    async def write() -> None:
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness))

    with contextlib.suppress(OSError):
        await write()
