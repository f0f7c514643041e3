"""Locusts that somebody else has started as clients of one zone: they join over a socket, and leave with their counts.

What they send and what they say is `loadgen`'s (see `loadgen.guest`).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from testbed.emulation.actors.locust_process import DRAIN_MARGIN_S
from testbed.results.tables.facts import LocustCount


@dataclass(slots=True)
class _Guest:
    """One that has joined; its newest second and totals."""

    writer: asyncio.StreamWriter
    sent_per_s: float = 0.0
    p99_ms: float = 0.0
    failed: int = 0
    unknown: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Guests:
    """Of one zone, from `open` to `dismiss`."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._server: asyncio.Server | None = None
        self._there: list[_Guest] = []
        self._left_failed = self._left_unknown = 0
        self._count: LocustCount | None = None
        self._vanished = 0
        self.joined = asyncio.Event()
        """Set when the first has."""

    async def open(self) -> None:
        """From now on they may join."""
        self._server = await asyncio.start_unix_server(self._host, path=self.socket)
        self.socket.chmod(0o600)

    @property
    def there(self) -> int:
        return len(self._there)

    @property
    def sent_per_s(self) -> float:
        return sum(guest.sent_per_s for guest in self._there)

    @property
    def p99_ms(self) -> float:
        return max((guest.p99_ms for guest in self._there), default=0.0)

    @property
    def failed(self) -> int:
        """Since the beginning, of those that have left, too."""
        return self._left_failed + sum(guest.failed for guest in self._there)

    @property
    def unknown(self) -> int:
        return self._left_unknown + sum(guest.unknown for guest in self._there)

    async def dismiss(self, timeout_s: float) -> tuple[LocustCount | None, int]:
        """Tell all to end, and wait until they have, for as long as their requests may take.

        Returns what all that ever joined have counted together, None where none has joined, and how many ended without
        their counts.
        """
        if self._server is not None:
            self._server.close()
        there = list(self._there)
        for guest in there:
            with contextlib.suppress(ConnectionError):
                guest.writer.write(b"stop\n")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(guest.gone.wait() for guest in there)), timeout_s + DRAIN_MARGIN_S)
        for guest in self._there:
            guest.writer.close()
        return self._count, self._vanished + len(self._there)

    async def _host(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guest = _Guest(writer)
        self._there.append(guest)
        counted = False
        with contextlib.suppress(ConnectionError, ValueError):
            async for line in reader:
                match orjson.loads(line):
                    case {"joined": _}:
                        self.joined.set()
                    case {"stats": stats}:
                        guest.sent_per_s, guest.p99_ms = stats["sent"], stats["p99_ms"] or 0.0
                        guest.failed, guest.unknown = stats["total"]["failed"], stats["total"]["unknown"]
                    case {"done": done}:
                        mine = LocustCount(done["requests"], done["failures"], done["own_events"], done["own_failures"])
                        self._count = mine if self._count is None else self._count.plus(mine)
                        counted = True
        self._there.remove(guest)
        self._left_failed += guest.failed
        self._left_unknown += guest.unknown
        self._vanished += not counted
        guest.gone.set()
        writer.close()
