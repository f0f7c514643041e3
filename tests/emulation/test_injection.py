"""Faults come when they are due, whatever others take, and what they hit is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from testbed.emulation.driver.injection import FAULT_LEAD_S, Injection
from testbed.emulation.driver.power_off import PowerOffFailed
from testbed.emulation.driver.world import Impact
from testbed.faults.effects import CutPower, Effect, KillPods
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
    """Each step takes its time from when it is due, as processes do that have to be ended."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.begun: list[tuple[float, float]] = []
        self._takes_s = takes_s

    async def apply(self, fault: str, effects: Sequence[Effect], due_s: float) -> Impact:
        at_s = await self._felt_s(due_s)
        match effects[-1]:
            case CutPower(node):
                return Impact(at_s, victims=(node,))
            case KillPods(pod="web-1"):
                return Impact(at_s, (("web-1", at_s),), ("web-1",))
            case KillPods(pod="gone-1"):
                return Impact(due_s, hit_nothing="pod gone-1 was not running")
            case KillPods(pod="buggy-1"):
                raise KeyError("buggy-1")
            case KillPods():
                raise PowerOffFailed("it still answers")
        raise AssertionError(effects)

    async def revert(self, fault: str, effects: Sequence[Effect], due_s: float) -> float:
        return await self._felt_s(due_s)

    async def _felt_s(self, due_s: float) -> float:
        self.begun.append((time.monotonic(), due_s))
        await asyncio.sleep(due_s - time.monotonic())
        at_s = time.monotonic()
        await asyncio.sleep(self._takes_s)
        return at_s


def injection(victims: Victims, *faults: ScheduledFault) -> tuple[Injection, list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    t0_s = time.monotonic() + FAULT_LEAD_S
    return Injection(faults, TOPOLOGY, victims, t0_s, lambda _, fault, what: told.append((fault, what))), told


def crash(node: str, at_s: float = 0.1) -> ScheduledFault:
    return ScheduledFault(f"crash-{node}", at_s, 0.3, NodeCrash(node))


def kill(pod: str, at_s: float = 0.0) -> ScheduledFault:
    return ScheduledFault(f"kill-{pod}", at_s, None, PodKill(pod=pod))


async def test_faults_of_one_moment_are_announced_and_carried_out_together() -> None:
    victims = Victims(takes_s=1.0)
    faults, _ = injection(victims, crash("a-1"), crash("b-1"), crash("c-1"))
    await faults.carry_out()
    assert len(victims.begun) == 6
    starts = victims.begun[:3]
    assert len({due_s for _, due_s in starts}) == 1
    # None of them waited for the second that another one took, nor did the heals.
    assert all(begun_s < due_s for begun_s, due_s in victims.begun)
    assert [fault.victims for fault in faults.applied()] == [("a-1",), ("b-1",), ("c-1",)]


async def test_what_could_not_be_carried_out_is_said_and_the_others_still_come() -> None:
    faults, told = injection(Victims(), kill("buggy-1"), kill("other-1", 0.05), kill("web-1", 0.1))
    await faults.carry_out()
    assert faults.failure is not None
    assert faults.failure.startswith("fault kill-buggy-1 could not be carried out: KeyError: 'buggy-1'")
    assert [fault.name for fault in faults.applied()] == ["kill-web-1"]
    assert told == [("kill-web-1", "applied to web-1")]
    assert [pod for pod, _ in faults.killed_proxies()] == ["web-1"]


async def test_a_fault_that_hits_nothing_says_why() -> None:
    faults, told = injection(Victims(), kill("gone-1"))
    await faults.carry_out()
    (applied,) = faults.applied()
    assert (applied.victims, applied.hit_nothing) == ((), "pod gone-1 was not running")
    assert told == [("kill-gone-1", "hit nothing: pod gone-1 was not running")]


async def test_what_is_overdue_is_named() -> None:
    faults, _ = injection(Victims(), kill("web-1"), crash("b-1", 0.1))
    assert faults.overdue(0.5) is None
    assert faults.overdue(1.05) == "fault kill-web-1 was due at 0 s and has not come"
    await faults.carry_out()
    assert faults.overdue(9.0) is None
