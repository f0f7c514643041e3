"""One machine of a run as its driver sees it: asked without waiting for ever, with its clock against the driver's."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayActorError, RayTaskError

from testbed.emulation.actors import Actor
from testbed.emulation.ray_session import RayMachine
from testbed.emulation.reports import MachineFolders
from testbed.emulation.sampler import MachineSample
from testbed.results.clocks import ClockEstimate
from testbed.results.tables import Clock

LOST_AFTER_S = 5.0
"""A machine that has been silent for this long is lost. It is asked for its clock five times a second."""


class MachineLost(Exception):
    """A machine of the run fell silent."""


class ActorDied(Exception):
    """An actor of the run ended, though its machine lives."""


def epoch_offset_s() -> float:
    """Epoch minus monotonic clock of this machine, from the pair of readings that lay closest together."""
    pairs = [(time.monotonic(), time.time(), time.monotonic()) for _ in range(9)]
    before, epoch, after = min(pairs, key=lambda reading: reading[2] - reading[0])
    return epoch - (before + after) / 2


class Member:
    """One machine of the fleet. Times are the driver's monotonic seconds, but for what `clock` says of its own."""

    def __init__(self, machine: RayMachine, actor: Actor, folders: MachineFolders, *, here: bool) -> None:
        self.name = machine.name
        self.address = machine.address
        self.node_id = machine.node_id
        self.actor = actor
        self.folders = folders
        self.here = here
        self.is_head = machine.is_head
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
        self._lost = asyncio.Event()

    async def ask(self, actor: Actor, method: str, *arguments: object) -> Any:
        """Call an actor that lives here. Raises MachineLost instead of waiting for a machine that is silent, and
        ActorDied."""
        if self.lost_s is not None:
            raise MachineLost(f"machine {self.name} is lost")
        call = asyncio.ensure_future(_answer(actor, method, arguments))
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({call, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                raise MachineLost(f"machine {self.name} is lost")
            return call.result()
        except RayTaskError:
            raise  # the actor is there, and tells what it met itself
        except RayActorError as error:
            if not self.here:
                # Ray may notice before we do.
                await asyncio.wait({lost}, timeout=LOST_AFTER_S + 1.0)
            if lost.done():
                raise MachineLost(f"machine {self.name} is lost") from error
            raise ActorDied(f"a process of the testbed on {self.name} is gone (asked to {method}): {error}") from error
        finally:
            call.cancel()
            lost.cancel()

    def lose(self, at_s: float) -> None:
        """It is silent since then: whoever waits for an answer is told."""
        if self.lost_s is None:
            self.lost_s = at_s
            self._lost.set()

    def table_clock(self, t0_s: float) -> Clock:
        """What turns times of this machine's clocks into those of the tables."""
        clock = self.clock
        return Clock(clock.to_remote(t0_s), clock.epoch_minus_monotonic_s, 1 + clock.drift)


@dataclass(frozen=True, slots=True)
class Resident:
    """An actor that lives on a machine of the fleet."""

    actor: Actor
    machine: Member

    async def ask(self, method: str, *arguments: object) -> Any:
        """Raises MachineLost or ActorDied."""
        return await self.machine.ask(self.actor, method, *arguments)


async def _answer(actor: Actor, method: str, arguments: tuple[object, ...]) -> Any:
    return await getattr(actor, method).remote(*arguments)
