"""Where the clients of a zone get in: gateways, and routers where they ask any, with the health checks of both.

The names of who is healthy are written for their Locust process to read. Who counts as healthy, and whose turn it is to
be checked, is `control.entry`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from loadgen.entry import Entry, write_entries
from testbed.control.entry import EntryTable
from testbed.control.views.envoy.listeners import READY_PATH
from testbed.control.views.kube_proxy import read_endpoints
from testbed.emulation.actors.network_card import NetworkCard
from testbed.emulation.processes.lateness import LoopWatch
from testbed.emulation.processes.probes import http_status
from testbed.network.addresses.backend import NetworkBackend
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import Topology
from testbed.objects.timings import Timings
from testbed.objects.workloads import GATEWAY, ROUTER, gateway_of, router_of

Changed = Callable[[str, tuple[str, ...]], None]
"""Called with the service, gateways or routers, and the zones of those who are healthy now, the nearest first."""


class EntryPoints:
    """Of the clients at the place of `card`, who are in `zone`."""

    def __init__(
        self,
        zone: str,
        topology: Topology,
        timings: Timings,
        network: NetworkBackend,
        card: NetworkCard,
        loop_watch: LoopWatch,
        file: Path,
        changed: Changed,
        routers: Iterable[str] = (),
        cells: Mapping[str, tuple[str, ...]] = {},
    ) -> None:
        """`routers` are the zones of these, `cells` those of each cell whose gateways clients ask for by its name."""
        self._topology = topology
        self._timings = timings
        self._network = network
        self._card = card
        self._loop_watch = loop_watch
        self._file = file
        self._changed = changed
        self._cells = cells
        self._zones = list(dict.fromkeys(node.locality.zone for node in topology.nodes))
        now = time.monotonic()
        self._tables = {
            GATEWAY: EntryTable(topology, zone, tuple((each, gateway_of(each)) for each in self._zones), timings, now),
            ROUTER: EntryTable(topology, zone, tuple((each, router_of(each)) for each in routers), timings, now),
        }
        self._targets: dict[SocketAddress, tuple[str, SocketAddress]] = {}

    async def lead(self, resources: Iterable[bytes]) -> None:
        """The gateway and the router of each zone are there from now on. One that nobody speaks of any more stays where
        it was."""
        slices = (read_endpoints(orjson.loads(resource)) for resource in resources)
        found = {
            self._listener(service, self._topology.place(node).locality.zone): (node, target)
            for service, endpoints in slices
            for node, target in endpoints
        }
        for listener, (node, target) in found.items():
            if self._targets.get(listener) != (node, target):
                await self._card.open_forward(node, listener, target)
                self._targets[listener] = (node, target)

    def write(self) -> None:
        gateways = self._tables[GATEWAY]
        write_entries(
            self._file,
            self._entries(GATEWAY, gateways.answer()),
            self._entries(ROUTER, self._tables[ROUTER].answer()),
            {cell: self._entries(GATEWAY, gateways.answer(zones)) for cell, zones in self._cells.items()},
        )

    async def check(self, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """Check all, for ever, from where these clients are, as an outside checker of a GSLB does. Each check is
        `spawn`ed."""
        while True:
            for service, table in self._tables.items():
                for zone, _ in table.due_checks(time.monotonic()):
                    spawn(self._check(service, table, zone))
            deadlines_s = [at for table in self._tables.values() if (at := table.next_deadline()) is not None]
            await asyncio.sleep(max(0.001, min(deadlines_s, default=time.monotonic() + 1.0) - time.monotonic()))

    async def _check(self, service: str, table: EntryTable, zone: str) -> None:
        healthy = await self._is_healthy(self._listener(service, zone))
        answer = table.handle_check(zone, healthy, time.monotonic())
        if answer is not None:
            self.write()
            self._changed(service, answer)

    async def _is_healthy(self, address: SocketAddress) -> bool:
        """A check is repeated whose time ran out while this process was held up, and could not look for the answer: it
        must not count against the gateway. What was late before that does not excuse it, else nobody would leave a
        gateway that is gone while a machine is busy."""
        timeout_s = self._timings.entry_check_timeout_s
        while True:
            began_s = time.monotonic()
            try:
                healthy = await http_status(address, READY_PATH, timeout_s) == 200
            except OSError:
                healthy = False
            if healthy or not self._loop_watch.woke(began_s + timeout_s):
                return healthy

    def _entries(self, service: str, zones: Iterable[str]) -> list[Entry]:
        return [Entry(zone, f"http://{self._listener(service, zone)}") for zone in zones]

    def _listener(self, service: str, zone: str) -> SocketAddress:
        """At the clients' own relay: gateways by the number of their zone, and routers after all of them."""
        number = self._zones.index(zone) + (len(self._zones) if service == ROUTER else 0)
        return self._network.client_entry(self._card.place, number)
