"""The clients of all zones, wherever they live: what each machine's are asked, and given."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.control.placement import Machine as MachineDescription
from testbed.emulation.actors.load_generator import LoadGeneratorFailed
from testbed.emulation.actors.machine import Introduction, Machine, Versions
from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.actors.seam import handle_of, in_process
from testbed.emulation.actors.vigil import Attended
from testbed.emulation.driver.clients import Clients
from testbed.emulation.driver.member import Member
from testbed.emulation.driver.ray_connection import RayMachine
from testbed.scenario import LoadSpec, load_scenario

LOAD = load_scenario(Path(__file__).parent / "scenarios" / "small.yaml").load
VERSIONS = Versions.here()


class Generator(Attended):
    """Remembers what it was asked."""

    def __init__(self, zone: str) -> None:
        super().__init__(zone)
        self.zone = zone
        self.files: tuple[Path | None, ...] = ()
        self.started_s: float | None = None
        self.port: int | None = None

    async def prepare(self, *files: Path | None) -> str | None:
        self.files = files
        return None

    async def start(self, t0_s: float) -> None:
        self.started_s = t0_s

    async def welcome_guests(self, ids_file: Path | None) -> str:
        self.files = (None, ids_file)
        return f"locust of {self.zone}"

    async def open_page(self, port: int, locustfile: Path | None) -> str | None:
        self.port, self.files = port, (locustfile,)
        return None


class Machines:
    """m1 is the driver's, m2 and m3 are others; generators live on them by zone."""

    def __init__(self, folder: Path) -> None:
        self.members = {name: self._member(folder / name) for name in ("m1", "m2", "m3")}
        self.generators: dict[str, Generator] = {}

    @asynccontextmanager
    async def clients(self, load: LoadSpec = LOAD, **zones: str) -> AsyncIterator[Clients]:
        """Of zones, each with the name of its machine."""
        self.generators = {zone: Generator(zone) for zone in zones}
        residents = {
            zone: self.members[machine].resident(handle_of(self.generators[zone]), zone, pytest.fail)
            for zone, machine in zones.items()
        }
        try:
            yield Clients(load, residents)
        finally:
            for member in self.members.values():
                member.dismiss()

    @staticmethod
    def _member(root: Path) -> Member:
        (root / "logs").mkdir(parents=True)
        folders = MachineFolders(root / "logs", root, "testbed-test")
        here = root.name == "m1"
        machine = RayMachine(MachineDescription(root.name, "127.0.0.1", None, 1 << 30, 1.0), root.name, here, here)
        actor = in_process(Machine, root.name, folders.run_id, folders)
        return Member(machine, actor, Introduction(VERSIONS, folders, ""), here=here)


@pytest.fixture
async def machines(tmp_path: Path) -> Machines:
    return Machines(tmp_path)


async def test_those_of_a_machine_that_is_off_are_not_waited_for_when_load_begins_once_more(machines: Machines) -> None:
    async with machines.clients(a="m2", b="m3") as clients:
        machines.members["m3"].powered_off = True
        machines.members["m3"].lose(0.0)
        await clients.prepare()
        await clients.start(5.0)
    assert [each.started_s for each in machines.generators.values()] == [5.0, None]


async def test_files_of_the_users_are_there_on_every_machine(machines: Machines, tmp_path: Path) -> None:
    locustfile = tmp_path / "my.py"
    locustfile.write_text("users")
    load = replace(LOAD, locustfile=locustfile)
    async with machines.clients(load, a="m1", b="m2") as clients:
        for asking in (clients.prepare, lambda: clients.open_pages(8089)):
            await asking()
            here, there = (generator.files[0] for generator in machines.generators.values())
            assert (here, there) == (locustfile, tmp_path / "m2" / "my.py")
            assert there is not None
            assert there.read_text() == "users"
            there.unlink()
        locustfile.unlink()
        with pytest.raises(LoadGeneratorFailed, match=r"my\.py: cannot be read: No such file or directory"):
            await clients.prepare()


async def test_pages_of_one_machine_have_ports_of_their_own_that_nobody_has(machines: Machines) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with machines.clients(a="m1", b="m2", c="m2") as clients:
            pages = await clients.open_pages(port)
    ports = {zone: generator.port for zone, generator in machines.generators.items()}
    assert pages == {zone: f"http://127.0.0.1:{port}" for zone, port in ports.items()}
    assert port not in ports.values()
    assert ports["b"] != ports["c"]


async def test_it_is_known_on_which_machine_a_locust_of_ones_own_can_join(machines: Machines) -> None:
    async with machines.clients(a="m1", b="m2") as clients:
        assert await clients.welcome_guests() == {"a": "locust of a", "b": "locust of b"}
        assert clients.elsewhere == {"b": "m2"}
