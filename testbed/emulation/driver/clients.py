"""The load generators of a run, one for each origin zone: told to send, asked how it goes, and where a person's own
Locusts may join them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from testbed.emulation.actors.load_generator import LoadGeneratorFailed
from testbed.emulation.actors.locust_process import DRAIN_MARGIN_S, STARTUP_DEADLINE_S, LoadProgress
from testbed.emulation.driver.member import Member, Resident, ask_all
from testbed.objects.places import clients_of
from testbed.results.tables.facts import LocustCount
from testbed.scenario import LoadSpec

T = TypeVar("T")

STARTS_WITHIN_S = STARTUP_DEADLINE_S + DRAIN_MARGIN_S


class Clients:
    """All of them, by zone. Those of a machine that was powered off are not asked to send."""

    def __init__(self, load: LoadSpec, generators: Mapping[str, Resident]) -> None:
        self._load = load
        self._generators = dict(generators)
        self._zones = {id(generator): zone for zone, generator in generators.items()}

    @property
    def all(self) -> list[Resident]:
        return list(self._generators.values())

    @property
    def by_place(self) -> dict[str, Resident]:
        """The same by the names of their places."""
        return {clients_of(zone): generator for zone, generator in self._generators.items()}

    @property
    def elsewhere(self) -> dict[str, str]:
        """The machines of those that are not on the driver's, by zone."""
        return {zone: each.machine.name for zone, each in self._generators.items() if not each.machine.here}

    async def prepare(self) -> None:
        """Start a Locust for each. Raises LoadGeneratorFailed or MachineLost."""
        await asyncio.gather(*(self._prepare(generator) for generator in self._on))

    async def start(self, t0_s: float) -> None:
        """Send from then on, the driver's monotonic seconds."""
        starting = (each.ask("start", each.machine.clock.to_remote(t0_s)) for each in self._on)
        await asyncio.gather(*starting)

    async def progress(self) -> dict[str, LoadProgress]:
        """The newest figures of every zone whose machine is there."""
        return self._by_zone(await ask_all("progress", self.all))

    async def stop(self) -> None:
        """Send no more, and wait for what is under way."""
        await ask_all("stop", self.all, within_s=self._load.timeout_s + 2 * DRAIN_MARGIN_S, together=False)

    async def welcome_guests(self) -> dict[str, str]:
        """From now on Locusts that somebody else starts may be clients; by zone, the line that starts one, to be typed
        on the machine of these clients. Raises LoadGeneratorFailed or MachineLost."""
        return dict(zip(self._generators, await asyncio.gather(*map(self._welcome, self.all)), strict=True))

    async def open_pages(self, first_port: int) -> dict[str, str]:
        """Locust's own page for the clients of each zone, on loopback of their machine, at a free port from that one
        on; returns the addresses. After `welcome_guests`. Raises LoadGeneratorFailed or MachineLost."""
        zones: dict[Member, list[str]] = defaultdict(list)
        for zone, generator in self._generators.items():
            zones[generator.machine].append(zone)
        ports: dict[str, int] = {}
        for machine, there in zones.items():
            ports |= zip(there, await machine.host.ask("free_ports", first_port, len(there)), strict=True)
        await asyncio.gather(*(self._open_page(self._generators[zone], port) for zone, port in ports.items()))
        return {zone: f"http://127.0.0.1:{ports[zone]}" for zone in self._generators}

    async def dismiss_guests(self) -> dict[str, tuple[LocustCount | None, int]]:
        """No more guests; by zone, what all have counted, and how many ended without their counts."""
        within_s = self._load.timeout_s + 2 * DRAIN_MARGIN_S
        return self._by_zone(await ask_all("dismiss_guests", self.all, within_s=within_s, together=False))

    @property
    def _on(self) -> list[Resident]:
        return [each for each in self.all if not each.machine.powered_off]

    def _by_zone(self, answers: Iterable[tuple[Resident, T]]) -> dict[str, T]:
        return {self._zones[id(generator)]: answer for generator, answer in answers}

    async def _prepare(self, generator: Resident) -> None:
        files = [await self._there(generator, file) for file in (self._load.locustfile, self._ids_file)]
        _require(await generator.ask("prepare", *files, within_s=STARTS_WITHIN_S))

    async def _welcome(self, generator: Resident) -> str:
        line: str = await generator.ask("welcome_guests", await self._there(generator, self._ids_file))
        return line

    async def _open_page(self, generator: Resident, port: int) -> None:
        locustfile = await self._there(generator, self._load.locustfile)
        _require(await generator.ask("open_page", port, locustfile, within_s=STARTS_WITHIN_S))

    @property
    def _ids_file(self) -> Path | None:
        return None if self._load.ids is None else self._load.ids.file

    @staticmethod
    async def _there(generator: Resident, file: Path | None) -> Path | None:
        """A file of the user's on the machine of a load generator. Raises LoadGeneratorFailed."""
        if file is None or generator.machine.here:
            return file
        try:
            content = file.read_bytes()
        except OSError as error:
            raise LoadGeneratorFailed(f"{file}: cannot be read: {error.strerror}") from error
        path: Path = await generator.machine.host.ask("put", file.name, content)
        return path


def _require(why_not: str | None) -> None:
    if why_not is not None:
        raise LoadGeneratorFailed(why_not)
