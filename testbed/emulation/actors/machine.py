"""One machine of a run: what all places on it share.

Owns its folders, its lock on the run's block of addresses, its link relays, its ingress, its samples, and the way of
its log files to whoever drives the run. On the driver's own machine it is a plain object there, on every other one an
actor.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import itertools
import os
import platform
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import psutil

import loadgen
import testbed
from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.actors.vigil import ActorLost, Attended
from testbed.emulation.actors.worker_setup import leave_out_unused_packages
from testbed.emulation.processes.fork_server import ForkServer, launch
from testbed.emulation.processes.janitor import Janitor
from testbed.emulation.processes.relay import Relays
from testbed.emulation.processes.sampler import MachineSample, MachineSampler
from testbed.faults.effects import LinkEffect
from testbed.network.addresses.loopback import LoopbackBlock
from testbed.network.links import LinkSample, Pairs
from testbed.network.wire.ingress import Ingress
from testbed.network.wire.relay_client import RelayLost
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import Topology
from testbed.scenario.checks.executables import why_not_startable

leave_out_unused_packages()

ORPHANED_AFTER_S = 5.0
RELAY_LOG = "relay.log"
FORK_SERVER_LOG = "fork-server.log"
PIECE_BYTES_MAX = 4 << 20
"""How much of its logs a machine hands over in one answer."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What has to be the same on every machine. `sources` is a digest of the installed testbed's files."""

    python: str
    testbed: str
    sources: str

    @classmethod
    def here(cls) -> Versions:
        digest = hashlib.sha256()
        for package in (testbed, loadgen):
            root = Path(package.__path__[0])
            for path in sorted(root.rglob("*.py")):
                digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
        return cls(platform.python_version(), importlib.metadata.version("testbed"), digest.hexdigest()[:12])

    def __str__(self) -> str:
        return f"Python {self.python}, testbed {self.testbed} (sources {self.sources})"


def hardware() -> str:
    """Of this machine, for people, as far as it makes one run slower than another."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        memory_gib = psutil.virtual_memory().total / 2**30
        cores = len(os.sched_getaffinity(0))
        return f"{cores} cores of {model}, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}"
    return platform.platform()


@dataclass(frozen=True, slots=True)
class Introduction:
    """What whoever drives the run has to know of a machine."""

    versions: Versions
    folders: MachineFolders
    hardware: str


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Bytes of a log file. A file that was replaced has another inode, and begins again at offset 0."""

    name: str
    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Collected:
    """Samples since the last call, and what is new in the logs; `more` when not all of it fitted in."""

    samples: list[MachineSample]
    pieces: list[LogPiece]
    more: bool


class Machine(Attended):
    def __init__(self, name: str, run_id: str, folders: MachineFolders | None = None) -> None:
        """`folders` are the driver's own, which it also removes, and in which it has launched a fork server. Elsewhere
        that is done here, and the files go to the driver by `collect`."""
        super().__init__("the process of the testbed")
        self._streams = self._is_actor = folders is None
        if folders is None:
            self._janitor = Janitor(run_id)
            root = self._janitor.folder
            folders = MachineFolders(root / "logs", root, run_id)
            folders.logs.mkdir()
            launch_fork_server(self._janitor, folders)
        self._folders = folders
        self._sampler = MachineSampler(name)
        self._relays = Relays(f"the link relay of machine {name}", folders.logs / RELAY_LOG, self.report_defect)
        self._fork_server = ForkServer(
            f"the fork server of machine {name}", folders.logs / FORK_SERVER_LOG, self.report_defect
        )
        self._block: LoopbackBlock | None = None
        self._ingress: Ingress | None = None

    async def introduce(self) -> Introduction:
        return Introduction(Versions.here(), self._folders, hardware())

    async def reserve(self, second_octet: int) -> bool:
        """Take the block 127.X.0.0/16 for this run; False when another run on this machine has it."""
        self._block = LoopbackBlock.take(second_octet)
        return self._block is not None

    async def release(self) -> None:
        if self._block is not None:
            self._block.release()

    async def start_processes(self, topology: Topology) -> None:
        """From now on places that live here can be plugged in, and their pods be started."""
        self._fork_server.own(self._folders.sockets)
        await self._relays.start(self._folders.sockets, self._folders.environment(), topology)

    async def impose(self, fault: str, pairs: Pairs, effect: LinkEffect, due_s: float) -> float:
        """On the links of all places that live here; as `NetworkCard.impose`. Raises ActorLost."""
        with _told_to_who_asks():
            return await self._relays.impose(fault, pairs, effect, due_s)

    async def lift(self, fault: str, due_s: float) -> float:
        """As `impose`."""
        with _told_to_who_asks():
            return await self._relays.lift(fault, due_s)

    async def link_samples(self) -> list[LinkSample]:
        """Since the last call. Raises ActorLost."""
        with _told_to_who_asks():
            return await self._relays.samples()

    async def open_ingress(self, ip: str, token: str, networks: Sequence[IPv4Network]) -> SocketAddress:
        """Let the run's other machines in, to the places that live here. Raises OSError."""
        self._ingress = Ingress(token, networks)
        return self._ingress.start(ip)

    async def why_not_startable(self, program: str, search_path: str | None) -> str | None:
        """Why a program cannot be started on this machine, if so."""
        return why_not_startable(program, search_path)

    async def put(self, name: str, content: bytes) -> Path:
        """Keep a file for the processes of this machine."""
        path = self._folders.sockets / name
        path.write_bytes(content)
        return path

    async def free_ports(self, first: int, count: int) -> list[int]:
        """So many ports of loopback from that one on at which nobody listens."""
        return list(itertools.islice(filter(_is_free, itertools.count(first)), count))

    async def start_sampling(self) -> None:
        self._sampler.start()

    async def collect(self, have: Mapping[str, tuple[int, int]]) -> Collected:
        """`have` are the logs that the driver has already: inode and length of each."""
        pieces, more = self._new_pieces(have) if self._streams else ([], False)
        return Collected(self._sampler.drain(), pieces, more)

    async def close(self) -> None:
        """Give back what this machine holds for the run. Its processes were ended before; its folders are the
        janitor's, who waits for the end of this process."""
        self._sampler.stop()
        await self._fork_server.stop()
        await self._relays.stop()
        if self._ingress is not None:
            self._ingress.stop()
        await self.release()
        if self._is_actor:
            # Ray ends it before, unless its head is gone.
            asyncio.get_running_loop().call_later(ORPHANED_AFTER_S, os._exit, 0)

    def _new_pieces(self, have: Mapping[str, tuple[int, int]]) -> tuple[list[LogPiece], bool]:
        pieces: list[LogPiece] = []
        room = PIECE_BYTES_MAX
        for path in sorted(self._folders.logs.iterdir()):
            if path.suffix == ".tmp" or not path.is_file():
                continue  # on its way to become a file
            with path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                known, offset = have.get(path.name, (inode, 0))
                if known != inode:
                    offset = 0
                file.seek(offset)
                data = file.read(room)
            if data:
                pieces.append(LogPiece(path.name, inode, offset, data))
                room -= len(data)
            if not room:
                return pieces, True
        return pieces, False


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(("127.0.0.1", port))
        return True
    return False


def launch_fork_server(janitor: Janitor, folders: MachineFolders) -> None:
    """The one of this machine. Raises ChildProcessError."""
    launch(janitor, folders.sockets, folders.container_environment(), folders.logs / FORK_SERVER_LOG)


@contextlib.contextmanager
def _told_to_who_asks() -> Iterator[None]:
    try:
        yield
    except RelayLost as lost:
        raise ActorLost(f"the link relay {lost}") from lost
