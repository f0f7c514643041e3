"""Faults come when they are due, whatever others take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from testbed.emulation.driver.events import FaultApplied, FaultHealed
from testbed.emulation.driver.injection import Injection
from testbed.emulation.driver.power_off import PowerOffFailed
from testbed.emulation.driver.world import FAULT_LEAD_S
from testbed.faults.effects import CutPower, Effect, KillPods
from testbed.faults.impact import Impact
from testbed.faults.nodes import NodeCrash
from testbed.faults.pods import PodKill
from testbed.faults.timeline import ScheduledFault
from testbed.objects.places import Locality, Place, Topology

TOPOLOGY = Topology(
    (
        *(Place(f"{zone}-1", Locality("east", zone)) for zone in "abc"),
        Place("control-plane", Locality("east", ""), "control-plane"),
    )
)


class Victims:
    """Each step takes its time from when it is due, as processes do that have to be ended. `told` is what a session
    tells of it."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.course: list[tuple[str, float]] = []
        """What came in which order: that something was announced, felt and over, and when it was due."""
        self.told: list[FaultApplied | FaultHealed] = []
        self._takes_s = takes_s

    async def inject(self, fault: str, effects: Sequence[Effect], due_s: float) -> None:
        at_s = await self._felt_s(due_s)
        match effects[-1]:
            case CutPower(node):
                impact = Impact(at_s, victims=(node,))
            case KillPods(pod="web-1"):
                impact = Impact(at_s, (("web-1", at_s),), ("web-1",))
            case KillPods(pod="gone-1"):
                impact = Impact(due_s, hit_nothing="pod gone-1 was not running")
            case KillPods(pod="buggy-1"):
                raise KeyError("buggy-1")
            case _:
                raise PowerOffFailed("it still answers")
        self.told.append(FaultApplied(fault, due_s, impact))

    async def heal(self, fault: str, due_s: float) -> None:
        self.told.append(FaultHealed(fault, due_s, await self._felt_s(due_s)))

    async def _felt_s(self, due_s: float) -> float:
        self.course.append(("announced", due_s))
        await asyncio.sleep(due_s - time.monotonic())
        at_s = time.monotonic()
        self.course.append(("felt", due_s))
        await asyncio.sleep(self._takes_s)
        self.course.append(("over", due_s))
        return at_s


def injection(victims: Victims, *faults: ScheduledFault) -> Injection:
    return Injection(faults, TOPOLOGY, victims, time.monotonic() + FAULT_LEAD_S)


def crash(node: str, at_s: float = 0.1) -> ScheduledFault:
    return ScheduledFault(f"crash-{node}", at_s, 0.5, NodeCrash(node))


def kill(pod: str, at_s: float = 0.0) -> ScheduledFault:
    return ScheduledFault(f"kill-{pod}", at_s, None, PodKill(pod=pod))


async def test_faults_of_one_moment_are_announced_and_carried_out_together() -> None:
    victims = Victims(takes_s=1.0)
    await injection(victims, crash("a-1"), crash("b-1"), crash("c-1")).carry_out()
    (start_s, heal_s) = sorted({due_s for _, due_s in victims.course})
    # None of them waited for the second that another one took, nor did the heals.
    expected = [(what, due_s) for due_s in (start_s, heal_s) for what in ("announced", "felt") for _ in range(3)]
    assert victims.course == expected + [("over", due_s) for due_s in (start_s, heal_s) for _ in range(3)]
    assert [type(event) for event in victims.told] == [FaultApplied] * 3 + [FaultHealed] * 3


async def test_what_could_not_be_carried_out_is_said_and_the_others_still_come() -> None:
    victims = Victims()
    faults = injection(victims, kill("buggy-1"), kill("other-1", 0.05), kill("web-1", 0.1))
    await faults.carry_out()
    assert faults.failure is not None
    assert faults.failure.startswith("fault kill-buggy-1 could not be carried out: KeyError: 'buggy-1'")
    assert [event.fault for event in victims.told] == ["kill-web-1"]
