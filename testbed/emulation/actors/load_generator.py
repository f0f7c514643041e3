"""The clients of one origin zone: a Locust process, the network card by which it reaches the gateways, its entry table.

Supervises and checks; which gateway is healthy enough to be entered is `control.entry`, sending and recording is
`loadgen` in the process of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

import orjson

from loadgen.entry import Entry, write_entries
from loadgen.settings import ClosedSource, Ids, OpenSource, RequestTemplate, Settings
from testbed.control.entry import EntryTable
from testbed.control.messages import ConfigAcked, Event, ProxyConnected
from testbed.control.views.envoy.listeners import READY_PATH
from testbed.control.views.envoy.xds import ENTRY_PARTITION_HEADER
from testbed.control.views.kube_proxy import read_endpoints
from testbed.emulation.actors.control_channel import ControlChannel
from testbed.emulation.actors.locust_process import LoadProgress, LocustProcess
from testbed.emulation.actors.network_card import NetworkCard, Placed
from testbed.emulation.actors.reports import EncodedPush, MachineFolders, NodeCommand, Recorded, Reported
from testbed.emulation.actors.seam import Actor, tell
from testbed.emulation.processes.probes import http_status
from testbed.network.addresses.backend import NetworkBackend
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import Topology, clients_of
from testbed.objects.timings import Timings
from testbed.objects.workloads import gateway_of
from testbed.scenario import LoadSource, LoadSpec
from testbed.scenario.values import IdSpec


class LoadGeneratorFailed(Exception):
    """The Locust process did not start; the message says why, or what it printed."""


class LoadGenerator(Placed):
    def __init__(
        self,
        zone: str,
        topology: Topology,
        control_plane: str,
        timings: Timings,
        network: NetworkBackend,
        master: Actor,
        load: LoadSpec,
        folders: MachineFolders,
        seed: int,
    ) -> None:
        self._place = clients_of(zone)
        card = NetworkCard(self._place, topology, network, folders.sockets, seed)
        super().__init__(f"the load generator of zone {zone}", card)
        self._zone = zone
        self._topology = topology
        self._control_plane = control_plane
        self._master = master
        self._timings = timings
        self._network = network
        self._load = load
        self._seed = seed
        self._environment = folders.environment()
        self._records_file = folders.logs / f"{zone}.requests.jsonl"
        self._entry_file = folders.logs / f"{zone}.entry.json"
        self._settings_file = folders.logs / f"{zone}.load.json"
        self._log = folders.logs / f"{zone}.locust.log"
        self._zones = list(dict.fromkeys(node.locality.zone for node in topology.nodes))
        self._to_master: ControlChannel[Reported] | None = None
        self._entry = EntryTable(
            topology, zone, tuple((each, gateway_of(each)) for each in self._zones), timings, time.monotonic()
        )
        self._targets: dict[str, tuple[str, SocketAddress]] = {}
        self._locust: LocustProcess | None = None
        self._turn = 0
        self._checks: asyncio.Task[None] | None = None

    def patience_s(self) -> float:
        return self._timings.entry_patience_s

    async def boot(self) -> None:
        self.loop_watch.start()
        self._to_master = self.card.channel(self._control_plane, self._deliver)
        self._report(ProxyConnected(self._place))

    async def take_commands(self, commands: list[NodeCommand]) -> None:
        """Where gateways are, as the control plane tells whoever keeps an entry table."""
        for told in commands:
            match told:
                case EncodedPush(self._place, type_url, version, resources):
                    await self._lead(resources)
                    self._report(ConfigAcked(self._place, type_url, version))
                case _:
                    raise AssertionError(f"{self._place} was sent {told}")

    async def _lead(self, resources: Iterable[bytes]) -> None:
        """The gateway of each zone is there from now on. One that nobody speaks of any more stays where it was."""
        slices = (read_endpoints(orjson.loads(resource)) for resource in resources)
        gateways = {
            self._topology.place(node).locality.zone: (node, target) for _, found in slices for node, target in found
        }
        for zone, (node, target) in gateways.items():
            if self._targets.get(zone) != (node, target):
                await self.card.open_forward(node, self._entry_listener(zone), target)
                self._targets[zone] = (node, target)

    def _report(self, event: Event) -> None:
        assert self._to_master is not None, "boot() comes first"
        self._to_master.send(Reported(event, time.monotonic()))

    async def _deliver(self, reports: list[Reported]) -> None:
        await tell(self._master, "report", self._place, time.monotonic(), reports)

    async def prepare(self, locustfile: Path | None, ids_file: Path | None = None) -> str | None:
        """Start Locust and wait until it could send; returns why it cannot, if so. Once more after each `stop`.

        `locustfile` is the user's, `ids_file` that of the ids, if any, on this machine.
        """
        if self._checks is None:
            self._write_entries(self._entry.answer())
            self._checks = self.spawn(self._check_entries())
        if self._locust is not None:
            await self._locust.end()
        self._turn += 1
        self._settings(locustfile, ids_file).save(self._settings_file)
        title = f"the load generator of {self._zone}"
        self._locust = LocustProcess(title, self._settings_file, self._environment, self._log, self.spawn)
        return await self._locust.ready()

    async def start(self, t0_s: float) -> None:
        """Send from `t0_s`, monotonic seconds."""
        assert self._locust is not None, "prepare() comes first"
        self._locust.start(t0_s)

    async def progress(self) -> LoadProgress:
        return LoadProgress() if self._locust is None else self._locust.progress

    async def stop(self) -> None:
        """Send no more, and return when all that was sent is answered or timed out."""
        if self._locust is not None:
            await self._locust.stop(self._load.timeout_s)

    async def shut_down(self) -> None:
        self.loop_watch.stop()
        if self._checks is not None:
            self._checks.cancel()
        if self._locust is not None:
            await self._locust.end()
        await self.card.unplug()

    def _settings(self, locustfile: Path | None, ids_file: Path | None) -> Settings:
        return Settings(
            origin_zone=self._zone,
            seed=self._seed,
            sources=tuple(_source(source) for source in self._load.sources if source.zone == self._zone),
            duration_s=self._load.duration_s,
            requests=tuple(
                RequestTemplate(each.name, each.method, each.path, each.weight, dict(each.headers), each.body)
                for each in self._load.requests
            ),
            timeout_s=self._load.timeout_s,
            connect_timeout_s=self._load.connect_timeout_s,
            entry_file=self._entry_file,
            entry_ttl_s=self._timings.entry_ttl_s,
            records_file=self._records_file,
            locustfile=locustfile,
            ids=None if self._load.ids is None else _ids(self._load.ids, ids_file),
            partition_header=ENTRY_PARTITION_HEADER,
            turn=self._turn,
        )

    def _entry_listener(self, zone: str) -> SocketAddress:
        return self._network.client_entry(self._place, self._zones.index(zone))

    def _write_entries(self, zones: Iterable[str]) -> None:
        write_entries(self._entry_file, [Entry(zone, f"http://{self._entry_listener(zone)}") for zone in zones])

    async def _check_entries(self) -> None:
        """Health checks of all gateways from where these clients are, as an outside checker of a GSLB does."""
        while True:
            due = self._entry.due_checks(time.monotonic())
            for zone, _ in due:
                self.spawn(self._check_entry(zone))
            deadline_s = self._entry.next_deadline()
            await asyncio.sleep(max(0.001, (deadline_s or time.monotonic() + 1.0) - time.monotonic()))

    async def _check_entry(self, zone: str) -> None:
        timeout_s = self._timings.entry_check_timeout_s
        try:
            healthy = await http_status(self._entry_listener(zone), READY_PATH, timeout_s) == 200
        except OSError:
            healthy = False
        answer = self._entry.handle_check(zone, healthy, time.monotonic())
        if answer is not None:
            self._write_entries(answer)
            self._events.append(
                Recorded(time.monotonic(), self._place, "Entry", self._zone, "EntryChanged", {"answer": list(answer)})
            )


def _ids(ids: IdSpec, file: Path | None) -> Ids:
    return Ids(ids.key.kind, ids.key.name, ids.session, ids.distribution, ids.count, ids.exponent, file)


def _source(source: LoadSource) -> OpenSource | ClosedSource:
    if source.rate_per_s is not None:
        return OpenSource(source.rate_per_s, source.arrival)
    assert source.users is not None, "a source has a rate or users"
    return ClosedSource(source.users, source.think_time_s)
