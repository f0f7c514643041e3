"""The clients of one origin zone: a Locust process, the network card by which it reaches the gateways, its entry table.

Supervises and checks; which gateway is healthy enough to be entered is `control.entry`, sending and recording is
`loadgen` in the process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson

from loadgen.command import command
from loadgen.entry import Entry, write_entries
from loadgen.settings import ENVIRONMENT_VARIABLE, ClosedSource, Ids, OpenSource, RequestTemplate, Settings
from testbed.control.entry import EntryTable
from testbed.control.messages import ConfigAcked, Event, ProxyConnected
from testbed.control.views.envoy.listeners import READY_PATH
from testbed.control.views.envoy.xds import ENTRY_PARTITION_HEADER
from testbed.control.views.kube_proxy import read_endpoints
from testbed.emulation.actors.control_channel import ControlChannel
from testbed.emulation.actors.network_card import NetworkCard, Placed
from testbed.emulation.actors.reports import EncodedPush, MachineFolders, NodeCommand, Recorded, Reported
from testbed.emulation.actors.seam import Actor, tell
from testbed.emulation.processes.probes import http_status
from testbed.emulation.processes.process import ChildProcess, last_lines
from testbed.network.addresses.backend import NetworkBackend
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import Topology, clients_of
from testbed.objects.timings import Timings
from testbed.objects.workloads import gateway_of
from testbed.results.tables.facts import LocustCount
from testbed.scenario import LoadSource, LoadSpec
from testbed.scenario.values import IdSpec

STARTUP_DEADLINE_S = 30.0
DRAIN_MARGIN_S = 5.0
LAST_WORDS_S = 1.0
"""How long what a process has printed is waited for once it has ended."""


class LoadGeneratorFailed(Exception):
    """The Locust process did not start; the message says why, or what it printed."""


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The newest second of one origin zone, and totals since the start."""

    t_s: float = 0.0
    sent_per_s: float = 0.0
    p99_ms: float = 0.0
    failed: int = 0
    unknown: int = 0
    done: LocustCount | None = None
    error: str | None = None


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
        self._process: ChildProcess | None = None
        self._progress = LoadProgress()
        self._ready = asyncio.Event()
        self._done = asyncio.Event()
        self._checks: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None

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
        """Start Locust and wait until it could send; returns why it cannot, if so.

        `locustfile` is the user's, `ids_file` that of the ids, if any, on this machine.
        """
        self._write_entries(self._entry.answer())
        self._checks = self.spawn(self._check_entries())
        self._settings(locustfile, ids_file).save(self._settings_file)
        self._process = ChildProcess(
            command(self._settings_file),
            env={**self._environment, ENVIRONMENT_VARIABLE: str(self._settings_file)},
            output=self._log,
            errors=self._log,
            on_exit=self._exited,
            pipes=True,
            punctual=True,
        )
        self._reader = self.spawn(self._read(self._process))
        try:
            await asyncio.wait_for(self._ready.wait(), STARTUP_DEADLINE_S)
        except TimeoutError:
            self._fail("did not become ready")
        return self._progress.error

    async def start(self, t0_s: float) -> None:
        """Send from `t0_s`, monotonic seconds."""
        self._tell(f"start {t0_s!r}")

    async def progress(self) -> LoadProgress:
        return self._progress

    async def stop(self) -> None:
        """Send no more, and return when all that was sent is answered or timed out."""
        if self._process is not None and self._process.running:
            self._tell("stop")
            try:
                await asyncio.wait_for(self._done.wait(), self._load.timeout_s + DRAIN_MARGIN_S)
            except TimeoutError:
                self._fail("did not stop")

    async def shut_down(self) -> None:
        self.loop_watch.stop()
        if self._checks is not None:
            self._checks.cancel()
        if self._process is not None:
            await self._process.terminate(grace_s=1.0)
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
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

    def _tell(self, line: str) -> None:
        assert self._process is not None, "prepare() comes first"
        with contextlib.suppress(BrokenPipeError):  # what its end means is told when that is noticed
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    async def _read(self, process: ChildProcess) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), process.stdout)
        async for line in reader:
            match orjson.loads(line):
                case {"ready": True}:
                    self._ready.set()
                case {"failed": why}:
                    self._give_up(why)
                case {"stats": stats}:
                    self._progress = LoadProgress(
                        t_s=stats["t"],
                        sent_per_s=stats["sent"],
                        p99_ms=stats["p99_ms"] or 0.0,
                        failed=stats["total"]["failed"],
                        unknown=stats["total"]["unknown"],
                    )
                case {"done": done}:
                    count = LocustCount(done["requests"], done["failures"], done["own_events"], done["own_failures"])
                    self._progress = LoadProgress(
                        failed=self._progress.failed, unknown=self._progress.unknown, done=count
                    )
                    self._done.set()

    def _exited(self, code: int) -> None:
        self._ending = self.spawn(self._ended(code))

    async def _ended(self, code: int) -> None:
        # What it said last may still be on the way.
        assert self._reader is not None, "it is read from since its start"
        await asyncio.wait({self._reader}, timeout=LAST_WORDS_S)
        if not self._done.is_set():
            self._fail(f"ended with exit code {code}")

    def _fail(self, how: str) -> None:
        self._give_up(f"the load generator of {self._zone} {how}: {last_lines(self._log)} (log: {self._log})")

    def _give_up(self, error: str) -> None:
        self._progress = LoadProgress(error=error)
        self._ready.set()
        self._done.set()


def _ids(ids: IdSpec, file: Path | None) -> Ids:
    return Ids(ids.key.kind, ids.key.name, ids.session, ids.distribution, ids.count, ids.exponent, file)


def _source(source: LoadSource) -> OpenSource | ClosedSource:
    if source.rate_per_s is not None:
        return OpenSource(source.rate_per_s, source.arrival)
    assert source.users is not None, "a source has a rate or users"
    return ClosedSource(source.users, source.think_time_s)
