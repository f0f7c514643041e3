"""One machine of a run as its driver sees it: its actors, and its clock against the driver's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from testbed.emulation.actors.machine import Introduction
from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.actors.seam import Actor
from testbed.emulation.actors.vigil import ActorLost, Watched
from testbed.emulation.driver.ray_connection import RayMachine
from testbed.emulation.processes.sampler import MachineSample
from testbed.results.tables.clocks import ClockEstimate
from testbed.results.tables.schemas import Clock

LOST_AFTER_S = 5.0
"""A machine that has been silent for this long is lost. It is asked for its clock five times a second."""


class MachineLost(Exception):
    """A machine of the run fell silent."""


def epoch_offset_s() -> float:
    """Epoch minus monotonic clock of this machine, from the pair of readings that lay closest together."""
    pairs = [(time.monotonic(), time.time(), time.monotonic()) for _ in range(9)]
    before, epoch, after = min(pairs, key=lambda reading: reading[2] - reading[0])
    return epoch - (before + after) / 2


class Member:
    """One machine of the fleet. Times are the driver's monotonic seconds, but for what `clock` says of its own."""

    def __init__(self, machine: RayMachine, actor: Actor, introduction: Introduction, *, here: bool) -> None:
        """`actor` is its Machine, which has introduced itself."""
        self.ray_machine = machine
        self.name = machine.name
        self.address = machine.address
        self.node_id = machine.node_id
        self.introduction = introduction
        self.here = here
        self.clock = ClockEstimate(0.0, 0.0, 0.0, 0.0, epoch_offset_s())
        self.first_epoch_offset_s = self.clock.epoch_minus_monotonic_s
        self.samples: list[MachineSample] = []
        """By this machine's own clock."""
        self.have: dict[str, tuple[int, int]] = {}
        """Its logs as far as they are brought home: inode and length."""
        self.collecting = asyncio.Lock()
        self.collected_s = 0.0
        self.lost_s: float | None = None
        self.powered_off = False
        self.failure: str | None = None
        """What went wrong with its Machine, if anything did."""
        self.lost = asyncio.Event()
        self._residents: list[Resident] = []
        self.host = self.resident(actor, "the process of the testbed", self._fail)

    @property
    def folders(self) -> MachineFolders:
        return self.introduction.folders

    def resident(self, actor: Actor, title: str, broken: Callable[[str], None]) -> Resident:
        """An actor that lives here; `broken` is told what goes wrong with it while this machine lives."""
        resident = Resident(actor, title, broken, self)
        self._residents.append(resident)
        return resident

    def dismiss(self) -> None:
        """Its actors may end now."""
        for resident in self._residents:
            resident.dismiss()

    def lose(self, at_s: float) -> None:
        """It is silent since then: whoever waits for an answer is told."""
        if self.lost_s is None:
            self.lost_s = at_s
            self.lost.set()
            for resident in self._residents:
                resident.lose(MachineLost(f"machine {self.name} is lost"))

    def table_clock(self, t0_s: float) -> Clock:
        """What turns times of this machine's clocks into those of the tables."""
        clock = self.clock
        return Clock(clock.to_remote(t0_s), clock.epoch_minus_monotonic_s, 1 + clock.drift)

    def _fail(self, what: str) -> None:
        self.failure = self.failure or what


class Resident(Watched):
    """An actor that lives on a machine of the fleet. Once that is lost, every question raises MachineLost."""

    def __init__(self, actor: Actor, title: str, broken: Callable[[str], None], machine: Member) -> None:
        super().__init__(actor, title if machine.here else f"{title} on machine {machine.name}", broken)
        self.machine = machine

    async def _find_out_why(self) -> None:
        if not self.machine.here:
            # Ray may notice before we do that it is the machine.
            await asyncio.wait({asyncio.ensure_future(self.machine.lost.wait())}, timeout=LOST_AFTER_S + 1.0)


async def ask_all(
    method: str,
    residents: Iterable[Resident],
    *arguments: object,
    within_s: float | None = None,
    together: bool = True,
) -> list[tuple[Resident, Any]]:
    """Answers of all that are there and stay there; whoever watches an actor that is lost is told of it.

    What takes its time is not asked `together`: whoever hangs then would take others that live with it for lost.
    """
    asked = list(residents)
    questions = (each.ask(method, *arguments, within_s=within_s, together=together) for each in asked)
    answers = await asyncio.gather(*questions, return_exceptions=True)
    heard = []
    for resident, answer in zip(asked, answers, strict=True):
        match answer:
            case MachineLost() | ActorLost():
                pass
            case BaseException():
                raise answer
            case _:
                heard.append((resident, answer))
    return heard
