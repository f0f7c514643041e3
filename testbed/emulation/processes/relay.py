"""The link relays of a machine, as processes: one for every few cores, which the machine's places share.

Starts them, passes faults on to all of them, and finds out when one has ended or hangs. What they do with bytes is
`network.wire`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from zlib import crc32

from testbed.emulation.processes.process import ChildProcess, last_lines
from testbed.faults.effects import LinkEffect
from testbed.network.links import LinkSample, Pairs
from testbed.network.wire.relay_client import ANSWERS_WITHIN_S, RelayClient, RelayLost
from testbed.objects.places import Topology

CORES_EACH = 8
"""A relay is one thread, which moves what some eight cores of proxies and workloads send each other."""
PING_PERIOD_S = 1.0
STARTS_WITHIN_S = 60.0


def relay_socket(folder: Path, place: str) -> Path:
    """Where the relay of a place is asked, on the machine of the place."""
    return _socket(folder, crc32(place.encode()) % _count())


def _count() -> int:
    return max(1, len(os.sched_getaffinity(0)) // CORES_EACH)


def _socket(folder: Path, number: int) -> Path:
    return folder / f"relay-{number}.sock"


class Relays:
    """All of a machine. `title` is what a person calls each; `broken(what)` is told of the first that is lost."""

    def __init__(self, title: str, log: Path, broken: Callable[[str], None]) -> None:
        self._title = title
        self._log = log
        self._broken = broken
        self._processes: list[ChildProcess] = []
        self._clients: list[RelayClient] = []
        self._watching: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self, folder: Path, env: Mapping[str, str], topology: Topology) -> None:
        """Places may connect from now on. Nobody waits here until a process is up: what is asked meanwhile is kept by
        the kernel."""
        for number in range(_count()):
            path = _socket(folder, number)
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(path))
                listening.listen(1024)
                self._processes.append(
                    ChildProcess(
                        [sys.executable, "-m", "testbed.network.wire.relay_process", str(listening.fileno())],
                        env=env,
                        output=self._log,
                        on_exit=self._ended,
                        punctual=True,
                        inherited=[listening.fileno()],
                    )
                )
            self._clients.append(await RelayClient.connected(path))
        self._watching = asyncio.get_running_loop().create_task(self._watch(topology))

    async def impose(self, fault: str, pairs: Pairs, effect: LinkEffect, due_s: float) -> float:
        """On all links of the machine, at `due_s`; returns when it was in effect. Monotonic seconds.

        Raises RelayLost, and KeyError for an unknown place.
        """
        return await self._everywhere("impose", due_s, fault, tuple(pairs), effect)

    async def lift(self, fault: str, due_s: float) -> float:
        """As `impose`."""
        return await self._everywhere("lift", due_s, fault)

    async def samples(self) -> list[LinkSample]:
        """Since the last call. Raises RelayLost."""
        found = await asyncio.gather(*(client.ask("samples") for client in self._clients))
        return [sample for samples in found for sample in samples]

    async def stop(self) -> None:
        """End them; connections that are left are reset."""
        self._closing = True
        if self._watching is not None:
            self._watching.cancel()
        for client in self._clients:
            client.close()
        for process in self._processes:
            process.kill()
        await asyncio.gather(*(process.wait() for process in self._processes))

    async def _everywhere(self, method: str, due_s: float, *arguments: object) -> float:
        within_s = max(0.0, due_s - time.monotonic()) + ANSWERS_WITHIN_S
        asked = (client.ask(method, *arguments, due_s, within_s=within_s) for client in self._clients)
        return max(await asyncio.gather(*asked), default=due_s)

    async def _watch(self, topology: Topology) -> None:
        try:
            await self._ask_all("begin", topology, within_s=STARTS_WITHIN_S)
            while True:
                await asyncio.sleep(PING_PERIOD_S)
                await self._ask_all("ping", within_s=ANSWERS_WITHIN_S)
        except RelayLost as lost:
            # One that has ended is heard of by its exit code, too, which says more.
            await asyncio.sleep(PING_PERIOD_S)
            self._lose(f"{self._title} {lost}")

    async def _ask_all(self, method: str, *arguments: object, within_s: float) -> None:
        await asyncio.gather(*(client.ask(method, *arguments, within_s=within_s) for client in self._clients))

    def _ended(self, code: int) -> None:
        words = last_lines(self._log)
        self._lose(f"{self._title} died (exit code {code})" + (f": {words}" if words else ""))

    def _lose(self, what: str) -> None:
        if not self._closing:
            self._closing = True
            self._broken(what)
