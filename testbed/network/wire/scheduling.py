"""Asks the kernel to run a thread soon after it wakes up, for threads whose lateness would be measured as latency.

Two means, both best effort. Linux 6.12 and newer let any thread choose its time slice: a short one gives an early
deadline, and so a short wait for a core, at the same share of it (sched_setattr(2); kernel documentation, sched-eevdf).
A real-time or higher priority needs a privilege (CAP_SYS_NICE, RLIMIT_RTPRIO or RLIMIT_NICE) that users usually lack.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

SHORT_SLICE_NS = 100_000
"""The shortest that the kernel grants."""
PUNCTUAL_NICENESS = -10

# By machine, as numbers of system calls are; elsewhere nothing is asked for.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_SCHED_ATTR = struct.Struct("IIQiIQQQ")
_libc = ctypes.CDLL(None)


def ask_to_be_punctual(thread: int = 0) -> None:
    """Applies to that thread, by default the calling one, and to all that it starts afterwards; the best of what is
    allowed."""
    for policy, niceness, priority, slice_ns in (
        (os.SCHED_RR, 0, 1, 0),
        (os.SCHED_OTHER, PUNCTUAL_NICENESS, 0, SHORT_SLICE_NS),
        (os.SCHED_OTHER, 0, 0, SHORT_SLICE_NS),
    ):
        if _set_attributes(thread, policy, niceness, priority, slice_ns):
            return


def ask_for_a_small_share(thread: int, niceness: int) -> bool:
    """Of the cores, but still soon: for a thread of this process that does little at a time. False if it cannot be."""
    return _set_attributes(thread, os.SCHED_OTHER, niceness, 0, SHORT_SLICE_NS)


def _set_attributes(thread: int, policy: int, niceness: int, priority: int, slice_ns: int) -> bool:
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return False
    flags = deadline_ns = period_ns = 0
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, policy, flags, niceness, priority, slice_ns, deadline_ns, period_ns)
    return bool(_libc.syscall(number, thread, attributes, 0) == 0)
