"""The clients of one origin zone: a Locust process, the network card by which it reaches the platform, and where it
gets in.

Supervises; which gateway is healthy enough to be entered is found out by `entry_points`, sending and recording is
`loadgen` in the process of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from loadgen.command import guest_line, page_command
from loadgen.settings import (
    ENVIRONMENT_VARIABLE,
    ClosedSource,
    Directed,
    Ids,
    OpenSource,
    Operations,
    RequestTemplate,
    Settings,
)
from testbed.control.messages import ConfigAcked, Ping, ProxyConnected
from testbed.control.views.envoy.partition_filter import MAP_VERSION_HEADER
from testbed.emulation.actors.control_link import ControlLink
from testbed.emulation.actors.entry_points import EntryPoints
from testbed.emulation.actors.guests import Guests
from testbed.emulation.actors.locust_process import STARTUP_DEADLINE_S, LoadProgress, LocustProcess
from testbed.emulation.actors.mail import mail_to
from testbed.emulation.actors.network_card import NetworkCard, Placed
from testbed.emulation.actors.reports import MachineFolders, Recorded, Reported
from testbed.emulation.actors.seam import Actor
from testbed.emulation.processes.master_messages import EncodedPush, NodeCommand
from testbed.emulation.processes.precedence import started_goes_first, starting_gives_way
from testbed.emulation.processes.process import ChildProcess, last_lines
from testbed.network.addresses.backend import NetworkBackend
from testbed.objects.cells import ENTRY_PARTITION_HEADER
from testbed.objects.places import Topology, clients_of
from testbed.objects.timings import Timings
from testbed.objects.workloads import GATEWAY, ROUTER
from testbed.results.tables.facts import LocustCount
from testbed.scenario import LoadSource, LoadSpec
from testbed.scenario.values import IdSpec, OperationKeys
from testbed.workloads.settings import STORE_OWNER_HEADER

_REASONS = {GATEWAY: "EntryChanged", ROUTER: "RouterChanged"}
"""Of the event that other gateways or routers are healthy than before."""


class LoadGeneratorFailed(Exception):
    """The Locust process did not start; the message says why, or what it printed."""


class LoadGenerator(Placed):
    def __init__(
        self,
        zone: str,
        topology: Topology,
        masters: Mapping[str, Actor],
        timings: Timings,
        network: NetworkBackend,
        load: LoadSpec,
        folders: MachineFolders,
        seed: int,
    ) -> None:
        self._place = clients_of(zone)
        card = NetworkCard(self._place, topology, network, folders.sockets, seed)
        super().__init__(f"the load generator of zone {zone}", card)
        self._zone = zone
        self._timings = timings
        self._load = load
        self._seed = seed
        self._environment = folders.environment()
        self._records_file = folders.logs / f"{zone}.requests.jsonl"
        self._entry_file = folders.logs / f"{zone}.entry.json"
        self._settings_file = folders.logs / f"{zone}.load.json"
        self._log = folders.logs / f"{zone}.locust.log"
        self._control = ControlLink(card, masters, topology, timings, self._deliver, self._connect, lambda: None)
        self._versions: dict[str, int] = {}
        self._booted = False
        directed = () if load.directed is None else (load.directed.routers, load.directed.zones)
        self._entry = EntryPoints(
            zone, topology, timings, network, card, self.loop_watch, self._entry_file, self._entry_changed, *directed
        )
        self._locust: LocustProcess | None = None
        self._turn = 0
        self._sockets = folders.sockets
        self._guests: Guests | None = None
        self._guests_settings_file = folders.logs / f"{zone}.guests.json"
        self._page: ChildProcess | None = None
        self._page_log = folders.logs / f"{zone}.locust-page.log"
        self._checks: asyncio.Task[None] | None = None

    def patience_s(self) -> float:
        return self._timings.entry_patience_s

    async def boot(self) -> None:
        self.loop_watch.start()
        self._control.open()
        self._control.begin()
        self._booted = True
        self._connect()
        if self._control.has_choice:
            self.spawn(self._ping())

    def _connect(self) -> None:
        if self._booted:
            self._control.say(ProxyConnected(self._place, tuple(self._versions.items())))

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._timings.lease_renew_s)
            self._control.say(Ping())

    async def take_commands(self, commands: list[NodeCommand]) -> None:
        """Where gateways and routers are, as the control plane tells whoever keeps an entry table."""
        for command in commands:
            match told := self._control.hear(command):
                case None:
                    pass
                case EncodedPush(self._place, _, type_url, version, resources):
                    self._versions[type_url] = int(version)
                    await self._entry.lead(resources)
                    self._control.say(ConfigAcked(self._place, type_url, version))
                case _:
                    raise AssertionError(f"{self._place} was sent {told}")

    async def _deliver(self, master: Actor, reports: list[Reported]) -> None:
        mail_to(master, self._timings.lease_patience_s).post(self._place, reports)

    async def prepare(self, locustfile: Path | None, ids_file: Path | None = None) -> str | None:
        """Start Locust and wait until it could send; returns why it cannot, if so. Once more after each `stop`.

        `locustfile` is the user's, `ids_file` that of the ids, if any, on this machine.
        """
        self._keep_entries()
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

    def _keep_entries(self) -> None:
        if self._checks is None:
            self._entry.write()
            self._checks = self.spawn(self._entry.check(self.spawn))

    async def progress(self) -> LoadProgress:
        """Of what is declared and of guests together; `done` and `error` are of what is declared."""
        declared = LoadProgress() if self._locust is None else self._locust.progress
        if self._guests is None:
            return declared
        return replace(
            declared,
            t_s=max(declared.t_s, float(self._guests.there)),
            sent_per_s=declared.sent_per_s + self._guests.sent_per_s,
            p99_ms=max(declared.p99_ms, self._guests.p99_ms),
            failed=declared.failed + self._guests.failed,
            unknown=declared.unknown + self._guests.unknown,
        )

    async def welcome_guests(self, ids_file: Path | None) -> str:
        """From now on any Locust may join that is started on this machine by the line that is returned."""
        self._keep_entries()
        self._guests = Guests(self._sockets / f"{self._zone}.guests")
        await self._guests.open()
        settings = self._settings(None, ids_file)
        replace(settings, guests_socket=self._guests.socket).save(self._guests_settings_file)
        return guest_line(self._guests_settings_file)

    async def open_page(self, port: int, locustfile: Path | None) -> str | None:
        """Start a Locust with its web page at that port, and wait until it has joined; returns why it has not, if so.

        After `welcome_guests`.
        """
        assert self._guests is not None
        ended = asyncio.Event()
        self._page = ChildProcess(
            page_command(self._guests_settings_file, port, locustfile),
            env={**self._environment, ENVIRONMENT_VARIABLE: str(self._guests_settings_file)},
            output=self._page_log,
            on_exit=lambda _: ended.set(),
            own_session=True,
        )
        await starting_gives_way(self._page.pid)
        waiting = [asyncio.create_task(self._guests.joined.wait()), asyncio.create_task(ended.wait())]
        await asyncio.wait(waiting, timeout=STARTUP_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if self._guests.joined.is_set():
            await started_goes_first(self._page.pid)
            return None
        how = "ended" if ended.is_set() else "did not start in time"
        return f"Locust's page of {self._zone} {how}: {last_lines(self._page_log)} (log: {self._page_log})"

    async def dismiss_guests(self) -> tuple[LocustCount | None, int]:
        """No more guests; those that are there end. Returns what all have counted, and how many have not."""
        return (None, 0) if self._guests is None else await self._guests.dismiss(self._load.timeout_s)

    async def stop(self) -> None:
        """Send no more, and return when all that was sent is answered or timed out."""
        if self._locust is not None:
            await self._locust.stop(self._load.timeout_s)

    async def shut_down(self) -> None:
        self.loop_watch.stop()
        self._control.close()
        if self._checks is not None:
            self._checks.cancel()
        if self._locust is not None:
            await self._locust.end()
        if self._page is not None:
            await self._page.terminate(grace_s=1.0)
        await self.card.unplug()

    def _settings(self, locustfile: Path | None, ids_file: Path | None) -> Settings:
        load = self._load
        return Settings(
            origin_zone=self._zone,
            seed=self._seed,
            sources=tuple(_source(source) for source in load.sources if source.zone == self._zone),
            duration_s=load.duration_s,
            requests=tuple(
                RequestTemplate(each.name, each.method, each.path, each.weight, dict(each.headers), each.body)
                for each in load.requests
            ),
            timeout_s=load.timeout_s,
            connect_timeout_s=load.connect_timeout_s,
            entry_file=self._entry_file,
            entry_ttl_s=self._timings.entry_ttl_s,
            records_file=self._records_file,
            locustfile=locustfile,
            ids=None if load.ids is None else _ids(load.ids, ids_file),
            partition_header=ENTRY_PARTITION_HEADER,
            turn=self._turn,
            operations=_operations(load.operations),
            directed=None if load.directed is None else Directed(load.directed.cookie, MAP_VERSION_HEADER),
        )

    def _entry_changed(self, service: str, zones: tuple[str, ...]) -> None:
        self._events.append(
            Recorded(time.monotonic(), self._place, "Entry", self._zone, _REASONS[service], {"answer": list(zones)})
        )


def _operations(keys: OperationKeys | None) -> Operations | None:
    return None if keys is None else Operations(keys.count, STORE_OWNER_HEADER, keys.prefix, keys.by_ids)


def _ids(ids: IdSpec, file: Path | None) -> Ids:
    return Ids(ids.key.kind, ids.key.name, ids.session, ids.distribution, ids.count, ids.exponent, file)


def _source(source: LoadSource) -> OpenSource | ClosedSource:
    if source.rate_per_s is not None:
        return OpenSource(source.rate_per_s, source.arrival)
    assert source.users is not None, "a source has a rate or users"
    return ClosedSource(source.users, source.think_time_s)
