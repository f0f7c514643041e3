"""Partitions go from one unit to another while clients write: which phases, in which order, keep every write.

One seed is one schedule: messages are lost, doubled and late, and whoever is told something hears it when it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from testbed.consensus.outputs import Send, Write
from testbed.consensus.storage import Stored
from testbed.control.cells.operations import Order as LayerOrder
from testbed.control.cells.phases import BACK, Phase, phases
from testbed.isr.messages import Message
from testbed.isr.outputs import Acknowledged, Acks, Of
from testbed.isr.units import Order, Unit
from testbed.results.measure.histories.operations import Operation, Outcome
from testbed.results.measure.histories.owners import double_writes
from tests.simulated.world import Chances, Disk, Host, T, World

NAMES = OLD, NEW, _ = ("u0", "u1", "u2")
SEEDS = 40


@dataclass
class UnitHost(Host[Unit]):
    forbids: bool = False
    """On its disk."""
    told: bool = False


@dataclass
class Written:
    at_s: float
    by: list[Operation] = field(default_factory=list)


class Units(World[UnitHost]):
    """One group of one partition, which the first of three units leads."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.chances = Chances(lost=0.05, doubled=0.1, late=0.1)
        self.writes: dict[object, Written] = {}
        for name in NAMES:
            self.hosts[name] = UnitHost(name, {0: Disk(Stored.nothing())})
            self.start(self.hosts[name])
        self.at(0.1 * T, self._write_one)

    def start(self, host: UnitHost) -> None:
        host.running = Unit(host.name, NAMES, {0: host.disks[0].content()}, {0: Order(OLD, 1)})
        self.tick(host)

    def receive(self, host: UnitHost, message: Message) -> None:
        assert host.running
        self.do(host, host.running.receive(message, self.clock(host)))

    def persisted(self, host: UnitHost, log: int | None, number: int) -> None:
        assert host.running
        self.do(host, host.running.persisted(log, number, self.clock(host)))

    def tick(self, host: UnitHost) -> None:
        assert host.running
        self.do(host, host.running.tick(self.clock(host)))

    def do(self, host: UnitHost, outputs: tuple[Of, ...]) -> None:
        assert host.running
        for of in outputs:
            match of.output:
                case Send(to, message):
                    self.send(host.name, to, message)
                case Write():
                    self.write(host, 0, of.output)
                case Acknowledged(request, _, epoch):
                    written, value = self.writes[request], str(request)
                    times = (written.at_s, self.now_s)
                    owner = f"{host.name}@{epoch}"
                    written.by.append(Operation("p", value, "0", True, value, *times, Outcome.OK, owner))
        self.set_timer(host)

    def _write_one(self) -> None:
        """Any unit may be asked: gateways have any map."""
        host = self.hosts[self.random.choice(NAMES)]
        if host.running and not host.forbids:
            request = len(self.writes)
            self.writes[request] = Written(self.now_s)
            self.do(host, host.running.produce(request, 0, request, Acks.LEADER, self.clock(host)))
        self.at(self.now_s + 0.1 * T * self.random.random(), self._write_one)

    # --- the operator -------------------------------------------------------------------------------------------

    def carry_out(self, phase: Phase) -> None:
        hosts = list(self.hosts.values())
        match phase:
            case "forbid":
                self._tell(lambda host: setattr(host, "forbids", True))
                self._wait_for(lambda: all(host.forbids for host in hosts))
            case "gateways":
                self.run_until(self.now_s + T * self.random.random())
            case "catch up":
                self._wait_for(self._caught_up)
            case "sidecars":
                self._tell(self._lead)
                self._wait_for(lambda: all(host.told for host in hosts))
            case "lift":
                self._tell(lambda host: setattr(host, "forbids", False))

    def _tell(self, what: Callable[[UnitHost], None]) -> None:
        for host in self.hosts.values():
            self.at(self.now_s + 2 * T * self.random.random(), self._tell_one, host, what)

    def _tell_one(self, host: UnitHost, what: Callable[[UnitHost], None]) -> None:
        """Again and again, until it can be reached."""
        if host.running:
            what(host)
        else:
            self.at(self.now_s + 0.1 * T, self._tell_one, host, what)

    def _lead(self, host: UnitHost) -> None:
        assert host.running
        host.told = True
        self.do(host, host.running.order(0, Order(NEW, 2), self.clock(host)))

    def _caught_up(self) -> bool:
        unit = self.hosts[OLD].running
        assert unit
        lags = unit.replicas[0].lags
        return lags is None or lags[NEW] == 0

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        assert self.run_until(self.now_s + 100 * T, condition)


def faults_of(seed: int, order: LayerOrder, forbids: bool, without: Phase | None = None) -> str:
    """What was lost, and what two took in turns, in words; empty where there is neither."""
    world = Units(seed)
    world.run_until(2 * T + T * world.random.random())
    for phase in phases(order, forbids):
        for each in phase:
            if each != without:
                world.carry_out(each)
    world.run_until(world.now_s + 5 * T)
    leader = world.hosts[NEW].running
    assert leader
    kept = {entry.command for entry in leader.replicas[0].log.entries}
    taken = [operation for written in world.writes.values() for operation in written.by]
    assert {operation.owner for operation in taken} == {f"{OLD}@1", f"{NEW}@2"}
    lost = [operation for operation in taken if int(operation.value or "") not in kept]
    return ("lost " if lost else "") + ("double" if double_writes(taken) else "")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_writes_that_are_forbidden_until_all_is_there_are_neither_lost_nor_taken_by_two(seed: int) -> None:
    assert faults_of(seed, "gatewaysFirst", forbids=True) == ""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_switch_that_is_given_up_since_the_old_leader_is_silent_loses_nothing_and_blocks_nobody(seed: int) -> None:
    world = Units(seed)
    world.run_until(2 * T + T * world.random.random())
    old = world.hosts[OLD]
    for (phase,) in phases("gatewaysFirst", True)[:2]:
        world.carry_out(phase)
    world.crash(old)
    world.run_until(world.now_s + 5 * T)
    for phase in (each for together in BACK for each in together if each != "sidecars"):  # they had no other map
        world.carry_out(phase)
    world.run_until(world.now_s + 3 * T)
    world.start(old)
    world.run_until(world.now_s + 5 * T)
    back_s = world.now_s
    world.run_until(world.now_s + 5 * T)
    assert old.running
    kept = {entry.command for entry in old.running.replicas[0].log.entries}
    taken = [operation for written in world.writes.values() for operation in written.by]
    assert {operation.owner for operation in taken} == {f"{OLD}@1"}
    assert [each for each in taken if int(each.value or "") not in kept] == []
    assert [each for each in taken if each.invoked_s > back_s], "it takes writes again"


@pytest.mark.parametrize(
    ("order", "forbids", "without", "found"),
    [
        ("gatewaysFirst", False, None, {"lost", "double"}),
        ("gatewaysFirst", True, "forbid", {"lost", "double"}),
        ("gatewaysFirst", True, "catch up", {"lost"}),
        ("sidecarsFirst", True, None, {"lost"}),
        ("together", True, None, {"lost"}),
    ],
)
def test_what_is_left_out_or_turned_around_is_found(
    order: LayerOrder, forbids: bool, without: Phase | None, found: set[str]
) -> None:
    words = [faults_of(seed, order, forbids, without).split() for seed in range(SEEDS)]
    assert {word for each in words for word in each} == found
