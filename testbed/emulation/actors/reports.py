"""What actors tell each other: reports to the master, commands to the nodes, and rows for the tables.

Times are monotonic seconds of the machine that noted them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.control.messages import Event, LeaseRenewed, SessionEvent
from testbed.control.waiting import Waiting
from testbed.emulation.processes.container import inherited
from testbed.emulation.processes.janitor import RUN_VARIABLE
from testbed.emulation.processes.master_messages import EncodedPush, NodeCommand


@dataclass(frozen=True, slots=True)
class MachineFolders:
    """Where processes of this machine write; sockets have a folder of their own, as their paths must be short."""

    logs: Path
    sockets: Path
    run_id: str

    @property
    def volumes(self) -> Path:
        """Disks of pods, gone with the run."""
        return self.sockets / "volumes"

    def environment(self) -> dict[str, str]:
        """Of the processes that are the testbed's own: with the mark by which the janitor finds them."""
        return {**os.environ, RUN_VARIABLE: self.run_id}

    def container_environment(self) -> dict[str, str]:
        """Of containers, proxies and probes' commands, which get little of the caller's: with the mark as well."""
        return {**inherited(os.environ), RUN_VARIABLE: self.run_id}


@dataclass(frozen=True, slots=True)
class Reported:
    """An event and when it happened at its source, in monotonic seconds. `session` is that with the master to which it
    is said; of another one it is not heard."""

    event: Event | SessionEvent
    at_s: float
    session: int = 0


@dataclass(frozen=True, slots=True)
class Letter:
    """Reports of one place, in order; the emulated link delivered them at `delivered_s` of the clock there."""

    place: str
    delivered_s: float
    reports: tuple[Reported, ...]


@dataclass(slots=True)
class Push:
    """A row of the `pushes` table; `sent_s` by the master's clock, `acked_s` by that of the proxy's place.

    `resources` are numbers of `pushed.PushedResources`.
    """

    proxy: str
    place: str
    type_url: str
    version: str
    sent_s: float
    resources: tuple[int, ...] = ()
    acked_s: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A row of the `events` table; time in monotonic seconds."""

    t_s: float
    source: str
    kind: str
    object: str
    reason: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Readiness:
    """How far the bring-up is: pods started and ready of all, and for each that is not ready, why."""

    started: int
    ready: int
    total: int
    waiting_for: tuple[Waiting, ...]


def latest_only(commands: list[NodeCommand]) -> list[NodeCommand]:
    """Of several pushes of one type to one proxy, the last: xDS is state, not history."""
    last = {
        (command.proxy, command.type_url): index
        for index, command in enumerate(commands)
        if isinstance(command, EncodedPush)
    }
    return [
        command
        for index, command in enumerate(commands)
        if not isinstance(command, EncodedPush) or last[command.proxy, command.type_url] == index
    ]


def latest_lease_only(reports: list[Reported]) -> list[Reported]:
    """Renewals that could not be sent are not made up for: only the newest counts."""
    leases = [report for report in reports if isinstance(report.event, LeaseRenewed)]
    return [report for report in reports if not isinstance(report.event, LeaseRenewed)] + leases[-1:]
