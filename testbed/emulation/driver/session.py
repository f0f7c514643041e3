"""A cluster that is up: loaded, broken and healed, changed, and taken down, in whatever order its user asks for.

Knows no script: which faults come when, how long load lasts and when all is over is `experiment`. Tells everything that
happens to its watcher, as `events`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from testbed.control.cells.promotion import Promotion
from testbed.control.cells.store_orders import StoreAnswer, StoreOrder
from testbed.control.overview import Behind, Overview
from testbed.control.placement import Hosting
from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.actors.vigil import ActorLost, in_short
from testbed.emulation.driver.cluster import ClusterRecords, EmulatedCluster
from testbed.emulation.driver.disk import DiskFull, RunDisk
from testbed.emulation.driver.events import (
    Applied,
    BringingUp,
    Broken,
    ChangeBegun,
    ChangeSettled,
    ComingUp,
    Deleted,
    FaultApplied,
    FaultHealed,
    GuestsLeft,
    GuestsWelcome,
    LoadEnded,
    LoadFailed,
    LoadReported,
    LoadStarted,
    LoadStopping,
    MachinesLost,
    Ready,
    Watcher,
)
from testbed.emulation.driver.fleet import Fleet
from testbed.emulation.driver.member import MachineLost
from testbed.emulation.driver.survey import Survey
from testbed.emulation.driver.world import FAULT_LEAD_S
from testbed.faults.effects import Effect
from testbed.objects.cells import Layer, PartitionMap
from testbed.objects.cluster import Declared
from testbed.scenario import Scenario

FLUSH_S = 0.3
"""Envoy writes its access log out every 200 ms."""


class FaultRefused(Exception):
    """A fault of that name cannot be injected or healed now; the message says why."""


class Session:
    """Made by `opened`. Of the scenario it takes what is declared (places, objects, load), not faults or expectations.

    Times given and returned are the driver's monotonic seconds.
    """

    def __init__(
        self, scenario: Scenario, fleet: Fleet, hosting: Hosting, disk: RunDisk, tell: Watcher, ordered_s: float
    ) -> None:
        self.fleet = fleet
        self._scenario = scenario
        self._cluster = EmulatedCluster(scenario, fleet, hosting)
        self._disk = disk
        self._tell = tell
        self._ordered_s = ordered_s
        self._in_force: dict[str, tuple[Effect, ...]] = {}
        self._broken: set[str] = set()
        self._load_over = False
        self._load_ended = False
        self.load_failed = False
        """Whether a load generator ended that should not have, by what `observe` has heard."""
        self._sampling = False

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls,
        scenario: Scenario,
        surveyed: Survey,
        folders: MachineFolders,
        disk: RunDisk,
        tell: Watcher,
        ordered_s: float,
    ) -> AsyncIterator[Session]:
        """A session on these machines, whose actors are starting; at the end of the context its machines are released.

        `ordered_s` is when its user asked for it. Raises FleetUnfit or AddressesExhausted.
        """
        async with Fleet.assembled(scenario, surveyed, folders) as fleet:
            tell(
                BringingUp(
                    scenario.name,
                    len(scenario.topology.nodes),
                    sum(deployment.replicas for deployment in scenario.cluster.deployments),
                    tuple(member.name for member in fleet.members),
                    scenario.profile,
                    scenario.seed,
                    surveyed.hosting,
                )
            )
            yield cls(scenario, fleet, surveyed.hosting, disk, tell, ordered_s)

    async def up(self) -> None:
        """Wait until all is as declared. Raises BringUpFailed or DiskFull."""

        def show(how_far: ComingUp) -> None:
            self._disk.require_room()
            self._tell(how_far)

        await self._cluster.bring_up(show)
        self._tell(Ready(time.monotonic() - self._ordered_s))

    async def apply(self, objects: Sequence[Declared]) -> None:
        """Create or change objects, and wait until all is as declared again. Raises Refused or BringUpFailed."""
        await self._cluster.apply(objects)
        self._tell(Applied(tuple((type(each).__name__, each.name) for each in objects)))

    async def delete(self, kind: type[Declared], name: str) -> None:
        """The same without an object. Raises Refused or BringUpFailed."""
        await self._cluster.delete(kind, name)
        self._tell(Deleted(kind.__name__, name))

    async def change(self, name: str, objects: Sequence[Declared], gone: Sequence[Declared]) -> None:
        """The same for several to create, change or delete, as one change of that name, without waiting.

        Raises Refused.
        """
        await self._cluster.put(objects, gone)
        told = tuple((type(each).__name__, each.name) for each in (*objects, *gone))
        self._tell(ChangeBegun(name, told, time.monotonic()))

    async def settle(self, change: str) -> None:
        """Wait until all is as declared after a change. Raises BringUpFailed."""
        await self._cluster.settle()
        self._tell(ChangeSettled(change, time.monotonic()))

    async def overview(self) -> Overview:
        """Every node and pod, as the control plane knows them."""
        return await self._cluster.overview()

    @property
    def cell_map(self) -> PartitionMap | None:
        """The one that was declared."""
        return self._scenario.cell_map

    async def put_map(self, cell_map: PartitionMap) -> None:
        """Apply a new version of the partition map, without waiting until anybody has it. Raises Refused."""
        await self._cluster.put_map(cell_map)

    async def promote(self, promotions: Sequence[Promotion]) -> tuple[str, ...]:
        """Bring the leaders of a store's groups to where these want them. Returns the replicas that do not know by then
        that they are."""
        return await self._cluster.promote(promotions)

    async def order(self, orders: Sequence[StoreOrder]) -> Mapping[StoreOrder, StoreAnswer]:
        """Tell replicas of asynchronous stores, each in the order given."""
        return await self._cluster.order(orders)

    async def behind(self, layer: Layer) -> Behind:
        """Which proxies of a layer do not have all that they should have."""
        return await self._cluster.behind(layer)

    async def start_sampling(self) -> None:
        """From now on machines are observed for the tables."""
        if not self._sampling:
            await self.fleet.start_sampling()
            self._sampling = True

    async def prepare_load(self) -> None:
        """Everything that can be done before the first request. Raises LoadGeneratorFailed or MachineLost."""
        await self._cluster.clients.prepare()
        await self.start_sampling()
        self._load_over = self._load_ended = False

    async def start_load(self, t0_s: float) -> None:
        """Send from then on, for as long as is declared or until `stop_load`, once after each `prepare_load`."""
        self._tell(LoadStarted(t0_s, self._scenario.load.duration_s))
        await self._cluster.clients.start(t0_s)

    @property
    def load_is_over(self) -> bool:
        """Whether everything that is declared was sent and answered, by what `observe` has heard."""
        return self._load_over

    async def stop_load(self) -> None:
        """Send no more, and wait for what is under way: as far as that still can be."""
        self._tell(LoadStopping(time.monotonic()))
        counts = {}
        with self.surviving("ending the load"):
            await self._cluster.clients.stop()
            progress = await self._cluster.clients.progress()
            counts = {zone: each.done for zone, each in progress.items() if each.done is not None}
        self._load_ended = True
        self._tell(LoadEnded(counts))

    async def welcome_guests(self, first_port: int | None) -> GuestsWelcome:
        """From now on Locusts that somebody else starts may be clients; with a port, Locust's own page is opened for
        those of each zone, at free ports from there on. Raises LoadGeneratorFailed or MachineLost."""
        clients = self._cluster.clients
        lines = await clients.welcome_guests()
        pages = {} if first_port is None else await clients.open_pages(first_port)
        return GuestsWelcome(lines, pages, clients.elsewhere)

    async def dismiss_guests(self) -> None:
        """No more guests; those that are there end, and leave their counts."""
        with self.surviving("ending guests"):
            found = await self._cluster.clients.dismiss_guests()
            counts = {zone: count for zone, (count, _) in found.items() if count is not None}
            self._tell(GuestsLeft(counts, {zone: missing for zone, (_, missing) in found.items() if missing}))

    @property
    def in_force(self) -> tuple[str, ...]:
        """The faults that can be healed."""
        return tuple(self._in_force)

    async def inject(self, fault: str, effects: Sequence[Effect], due_s: float | None = None) -> None:
        """Break something under that name; returns when it is felt.

        `due_s` should be FAULT_LEAD_S ahead, which it is if it is left out. Call in order of `due_s`. Raises
        FaultRefused, PowerOffFailed, MachineLost or ActorLost.
        """
        due_s = time.monotonic() + FAULT_LEAD_S if due_s is None else due_s
        if fault in self._in_force:
            raise FaultRefused(f"fault {fault} is in force already")
        lasting = tuple(effect for effect in effects if effect.lasts)
        if lasting:
            self._in_force[fault] = lasting
        impact = await self._cluster.world.apply(fault, effects, due_s)
        self._tell(FaultApplied(fault, due_s, impact, bool(lasting)))

    async def heal(self, fault: str, due_s: float | None = None) -> None:
        """Take back what lasts of it; the rest as for `inject`."""
        due_s = time.monotonic() + FAULT_LEAD_S if due_s is None else due_s
        if fault not in self._in_force:
            raise FaultRefused(f"no fault {fault} is in force")
        at_s = await self._cluster.world.revert(fault, self._in_force.pop(fault), due_s)
        self._tell(FaultHealed(fault, due_s, at_s))

    async def observe(self) -> bool:
        """Bring home what is new and tell how it goes; whether there is any use in going on.

        To be called once a second. Raises DiskFull.
        """
        progress = await self._cluster.clients.progress()
        collected = await self._cluster.collect()
        self._disk.require_room()
        self._tell(collected)
        self._tell(LoadReported(time.monotonic(), progress))
        self._load_over = all(each.done is not None for each in progress.values())
        errors = () if self._load_ended else tuple(each.error for each in progress.values() if each.error is not None)
        self.load_failed = bool(errors)
        if errors:
            # Its zone has no count of Locust's own then, which makes the run invalid.
            self._tell(LoadFailed(errors))
            return False
        if self.fleet.lost:
            self._tell(MachinesLost(tuple(member.name for member in self.fleet.lost)))
            return False
        if (why := self._cluster.failure or self.fleet.failure) is not None:
            self.break_off(why)
            return False
        return True

    async def down(self) -> ClusterRecords:
        """End every process in good order, and return what was recorded: as much as still can be had."""
        records = ClusterRecords([], [], [], ())
        await asyncio.sleep(FLUSH_S)
        with self.surviving("ending the cluster's processes"):
            await self._cluster.shut_down()
        with self.surviving("collecting the cluster's records"):
            records = await self._cluster.records()
        with self.surviving("collecting the machines' records"):
            await self.fleet.collect()
        for failure in (self._cluster.failure, self.fleet.failure):
            if failure is not None:
                self.break_off(failure)
        return records

    def break_off(self, why: str, defect: Exception | None = None) -> None:
        """From now on it says nothing about the platform any more."""
        if why not in self._broken:
            self._broken.add(why)
            self._tell(Broken(why, defect))

    @contextlib.contextmanager
    def surviving(self, doing: str) -> Iterator[None]:
        """Whatever goes wrong in the block breaks the session, and takes nothing with it that was measured."""
        try:
            yield
        except (MachineLost, ActorLost, DiskFull) as failure:
            self.break_off(str(failure))
        except Exception as defect:
            self.break_off(f"{doing} failed: {in_short(defect)}", defect)
