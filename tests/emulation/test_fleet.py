"""The machines of a run, played by objects of this process with real sockets between them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayActorError

from testbed.control.placement import Machine as MachineDescription
from testbed.emulation.actors.machine import PIECE_BYTES_MAX, Introduction, Machine, Versions
from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.actors.seam import in_process
from testbed.emulation.actors.vigil import ActorLost, Attended
from testbed.emulation.driver import fleet as fleet_module
from testbed.emulation.driver import member as member_module
from testbed.emulation.driver.fleet import Fleet
from testbed.emulation.driver.member import MachineLost, Resident
from testbed.emulation.driver.power_off import PowerOffFailed
from testbed.emulation.driver.ray_connection import RayMachine
from testbed.emulation.driver.survey import FleetUnfit, require_breakable, survey
from testbed.faults.effects import PowerOffMachine
from testbed.network.addresses.loopback import LoopbackBlock
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import Topology
from testbed.scenario import Scenario, load_scenario
from tests.emulation.loopback import DEADLINE_S

SCENARIO = Path(__file__).parents[2] / "scenarios" / "zone-outage.yaml"


@dataclass
class Block:
    """One for each machine: here they share one loopback, which real ones do not."""

    second_octet: int

    def release(self) -> None: ...


def described(name: str, zone: str | None, address: str = "127.0.0.1") -> RayMachine:
    return RayMachine(
        MachineDescription(name, address, zone, 16 << 30, 8.0),
        node_id=name,
        is_driver=name == "m1",
        is_head=name == "m1",
    )


MACHINES = [described("m1", None), described("m2", "east-a"), described("m3", "east-b"), described("m4", "east-c")]


class World:
    """Started machines by name, so that tests can do to them what happens to real ones."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machines: dict[str, Machine] = {}
        self.folders = MachineFolders(folder / "logs", folder, "testbed-test")
        self.folders.logs.mkdir()
        self._folder = folder
        self._start_actor_versions: dict[str, Versions] = {}
        monkeypatch.setattr(LoopbackBlock, "take", staticmethod(Block))
        monkeypatch.setattr(fleet_module, "start_actor", self._start)
        monkeypatch.setattr(Machine, "start_processes", _nothing)
        monkeypatch.setattr(fleet_module, "LOST_AFTER_S", 3.0)
        monkeypatch.setattr(fleet_module, "COLLECT_PERIOD_S", 0.05)

    def versions(self, machine: str, versions: Versions) -> None:
        self._start_actor_versions[machine] = versions

    def _start(self, kind: type, name: str, run_id: str, *, node_id: str) -> Any:
        root = self._folder / name
        (root / "logs").mkdir(parents=True)
        actor = in_process(Remote, name, run_id, MachineFolders(root / "logs", root, run_id))
        self.machines[name] = actor._target  # type: ignore[attr-defined]
        if name in self._start_actor_versions:
            actor._target.versions = self._start_actor_versions[name]  # type: ignore[attr-defined]
        return actor

    def logs(self, machine: str) -> Path:
        return self._folder / machine / "logs"

    @contextlib.asynccontextmanager
    async def fleet(self, machines: list[RayMachine] = MACHINES, **changes: Any) -> AsyncIterator[Fleet]:
        scenario: Scenario = replace(load_scenario(SCENARIO), **changes)
        async with Fleet.assembled(scenario, survey(scenario, machines), self.folders) as fleet:
            yield fleet


async def _nothing(machine: Machine, topology: Topology) -> None:
    """No places live here, and nobody would end the processes of a machine that is lost."""


class Remote(Machine):
    """A machine that hands its logs over, as those that are not the driver's do."""

    def __init__(self, name: str, run_id: str, folders: MachineFolders) -> None:
        super().__init__(name, run_id, folders)
        self._streams = True
        self.versions = Versions.here()

    async def introduce(self) -> Introduction:
        return replace(await super().introduce(), versions=self.versions)

    async def open_ingress(self, ip: str, token: str, networks: list[IPv4Network]) -> SocketAddress:
        return await super().open_ingress(ip, token, networks)

    def power_off(self) -> None:
        assert self._ingress is not None
        self._ingress.stop()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


async def until(condition: Any, deadline_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_places_live_on_the_machines_of_their_zones_and_the_control_plane_on_the_drivers(world: World) -> None:
    async with world.fleet() as fleet:
        names = {place: fleet.of(place).name for place in ("east-a-1", "clients/east-b", "east-c-1", "control-plane")}
        assert names == {"east-a-1": "m2", "clients/east-b": "m3", "east-c-1": "m4", "control-plane": "m1"}
        assert fleet.network.tunnel("east-a-1", "clients/east-a") is None
        assert fleet.network.tunnel("east-a-1", "east-b-1") is not None


async def test_without_an_own_cluster_the_drivers_machine_is_all_there_is_and_nothing_listens(world: World) -> None:
    async with world.fleet([MACHINES[0]]) as fleet:
        assert {fleet.of(place).name for place in ("east-a-1", "clients/east-b", "control-plane")} == {"m1"}
        assert fleet.network.tunnel("east-a-1", "east-b-1") is None
        assert [facts.clock_error_s for facts in fleet.facts(0.0)] == [0.0]


async def test_logs_come_home_while_they_grow_and_whole_when_they_were_replaced(world: World) -> None:
    async with world.fleet() as fleet:
        there, here = world.logs("m2") / "web-1.access.jsonl", world.folders.logs / "web-1.access.jsonl"
        with there.open("ab", buffering=0) as log:
            for line in (b"one\n", b"two\n"):
                log.write(line)
                await until(lambda line=line: here.exists() and here.read_bytes().endswith(line))
        assert here.read_bytes() == b"one\ntwo\n"
        replacement = world.logs("m2") / "replacement"
        replacement.write_bytes(b"anew\n")
        replacement.replace(there)
        await fleet.collect()
        assert here.read_bytes() == b"anew\n"


async def test_more_than_fits_in_one_answer_comes_home_in_several(world: World) -> None:
    async with world.fleet() as fleet:
        content = bytes(range(256)) * (PIECE_BYTES_MAX // 256) * 2 + b"the end"
        (world.logs("m3") / "large.log").write_bytes(content)
        await fleet.collect()
        assert (world.folders.logs / "large.log").read_bytes() == content


async def test_a_machine_that_falls_silent_is_lost_and_nobody_waits_for_it(world: World) -> None:
    async with world.fleet() as fleet:
        waiting = asyncio.create_task(resident(fleet, "east-b-1", Silent).ask("answer"))
        world.machines["m3"].power_off()  # type: ignore[attr-defined]
        with pytest.raises(MachineLost, match="m3"):
            await asyncio.wait_for(waiting, DEADLINE_S)
        assert [lost.name for lost in fleet.lost] == ["m3"]
        assert [facts.lost_s is not None and not facts.powered_off for facts in fleet.facts(0.0)] == [0, 0, 1, 0]


def resident(fleet: Fleet, place: str, kind: type) -> Resident:
    return fleet.of(place).resident(in_process(kind), "the tester", lambda what: None)


class Silent(Attended):
    def __init__(self) -> None:
        super().__init__("one that never answers")

    async def answer(self) -> None:
        await asyncio.Event().wait()


async def test_a_machine_that_was_ordered_off_is_off_since_its_last_sign_of_life(world: World) -> None:
    async with world.fleet() as fleet:
        went_s: list[float] = []

        def go() -> None:
            world.machines["m2"].power_off()  # type: ignore[attr-defined]
            went_s.append(loop.time())

        loop = asyncio.get_running_loop()
        loop.call_later(0.2, go)
        ordered_s = loop.time() + 0.1
        at_s = await fleet.power_off(PowerOffMachine("m2", (sys.executable, "-c", "")), ordered_s)
        # What the machine had said already may be read a little later.
        assert ordered_s <= at_s < went_s[0] + 1.0
        assert fleet.lost == []
        assert [facts.powered_off for facts in fleet.facts(0.0)] == [False, True, False, False]


async def test_a_power_off_command_that_fails_says_what_it_said(world: World) -> None:
    async with world.fleet() as fleet:
        command = (sys.executable, "-c", "print('no such instance'); raise SystemExit(3)")
        with pytest.raises(PowerOffFailed, match="ended with 3: no such instance"):
            await fleet.power_off(PowerOffMachine("m2", command), 0.0)


async def test_machines_with_other_versions_are_named_with_theirs_and_ours(world: World) -> None:
    world.versions("m3", replace(Versions.here(), python="3.12.1"))
    with pytest.raises(FleetUnfit, match=r"machine m3 \(127.0.0.1\) has Python 3.12.1, .* but this command has"):
        async with world.fleet():
            pass


def powering_off(machine: str) -> Scenario:
    faults = f"spec.faults=[{{name: off, at: 12s, machine: {machine}, powerOff: {{}}}}]"
    return load_scenario(SCENARIO, [faults, "spec.expect=[]"])


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        ("m9", "this run has no machine m9, only m1, m2, m3, m4"),
        ("m1", "machine m1 drives the run and cannot be powered off"),
    ],
)
def test_a_machine_that_cannot_be_powered_off_is_told_before_anything_starts(machine: str, why: str) -> None:
    require_breakable(powering_off("m2"), MACHINES)
    with pytest.raises(FleetUnfit) as raised:
        require_breakable(powering_off(machine), MACHINES)
    assert str(raised.value) == f"fault off: {why}"


async def test_a_machine_that_is_not_there_cannot_be_powered_off(world: World) -> None:
    async with world.fleet() as fleet:
        with pytest.raises(PowerOffFailed, match="this run has no machine m9"):
            await fleet.power_off(PowerOffMachine("m9", ("true",)), 0.0)


MINE = "spec.services.web={zones: [east-a, east-b], replicas: 2, workload: {command: [mine]}}"


async def test_a_program_that_a_machine_lacks_is_told_before_anything_starts(world: World) -> None:
    with pytest.raises(FleetUnfit) as caught:
        async with world.fleet(cluster=load_scenario(SCENARIO, [MINE]).cluster):
            pass
    assert str(caught.value).splitlines() == [
        f"machine {machine} cannot run service web: there is no program 'mine' in PATH" for machine in ("m2", "m3")
    ]


async def test_a_program_is_looked_for_where_its_pods_do(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("#!/bin/sh\n")
    (tmp_path / "mine").chmod(0o755)
    cluster = load_scenario(SCENARIO, [MINE, f"spec.services.web.workload.env.PATH='{tmp_path}'"]).cluster
    async with world.fleet(cluster=cluster) as fleet:
        assert fleet.members


async def test_a_power_off_command_that_never_ends_is_no_obstacle(world: World) -> None:
    async with world.fleet() as fleet:
        loop = asyncio.get_running_loop()
        loop.call_later(0.2, world.machines["m2"].power_off)  # type: ignore[attr-defined]
        endless = PowerOffMachine("m2", (sys.executable, "-c", "import time; time.sleep(60)"))
        await asyncio.wait_for(fleet.power_off(endless, loop.time()), DEADLINE_S)
        assert fleet.of("east-a-1").powered_off


async def test_an_actor_that_dies_on_a_machine_that_lives_is_not_taken_for_a_lost_machine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_module, "LOST_AFTER_S", 0.0)
    async with world.fleet() as fleet:
        for place in ("east-a-1", "control-plane"):
            with pytest.raises(ActorLost, match=r"the tester( on machine m2)? died"):
                await resident(fleet, place, Dead).ask("answer")
        assert fleet.lost == []


class Dead:
    async def answer(self) -> None:
        raise RayActorError


async def test_what_was_asked_for_twice_comes_home_once(world: World) -> None:
    async with world.fleet() as fleet:
        (world.logs("m2") / "a.log").write_bytes(b"one\n")
        (world.logs("m2") / "b.tmp").write_bytes(b"not yet")
        await asyncio.gather(*(fleet.collect() for _ in range(5)))
        assert (world.folders.logs / "a.log").read_bytes() == b"one\n"
        assert not (world.folders.logs / "b.tmp").exists()
