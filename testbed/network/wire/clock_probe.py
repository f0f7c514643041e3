"""Asks other machines what time it is there, and by that how far away they are and whether they still answer.

Owns the readings. What they say about a clock is estimated in `results.tables.clocks`; who answers is `ingress`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from typing import cast

from testbed.network.wire.ingress import CLOCK, PONG
from testbed.network.wire.loop_thread import LoopThread, Tasks
from testbed.network.wire.tunnel import Tunnel, dial

_PATIENCE_S = 1.0
"""An answer that takes longer says nothing about a clock: the connection is given up for a new one."""
_PING = struct.Struct(">q")


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One answer: `sent_s` and `received_s` are this machine's `time.monotonic`, the other two the remote machine's."""

    sent_s: float
    remote_monotonic_s: float
    remote_epoch_s: float
    received_s: float

    @property
    def round_trip_s(self) -> float:
        return self.received_s - self.sent_s


class RemoteClock:
    """Asks one peer every `period_s`, over one connection that is replaced when it breaks or stalls.

    Use it from the thread that runs the loop. A peer that is silent or gone costs nothing but the attempts.
    """

    def __init__(self, tasks: Tasks, tunnel: Tunnel, period_s: float, heard: Callable[[ClockReading], object]) -> None:
        self._tasks = tasks
        self._tunnel = tunnel
        self._period_s = period_s
        self._heard = heard
        self._conversation: _Conversation | None = None
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Ask now and from now on."""
        self._next = self._tasks.loop.call_later(self._period_s, self.start)
        if self._conversation is not None and self._conversation.is_over(monotonic()):
            self._conversation.close()
            self._conversation = None
        if self._conversation is None:
            self._conversation = _Conversation(self._tasks, self._tunnel, self._heard)
        else:
            self.ask()

    def ask(self) -> None:
        """Ask once more, out of turn, unless an answer is still owed."""
        if self._conversation is not None:
            self._conversation.ask()

    def close(self) -> None:
        """Ask no more. May be called twice."""
        if self._next is not None:
            self._next.cancel()
        if self._conversation is not None:
            self._conversation.close()
            self._conversation = None


class _Conversation(asyncio.Protocol):
    """One connection to an ingress, with at most one question open."""

    def __init__(self, tasks: Tasks, tunnel: Tunnel, heard: Callable[[ClockReading], object]) -> None:
        self._heard = heard
        self._ended = False
        self._waiting_since_s: float | None = monotonic()
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._dialling = tasks.keep(self._dial(tunnel))

    async def _dial(self, tunnel: Tunnel) -> None:
        try:
            await dial(tunnel, CLOCK, self)
        except OSError:
            self._ended = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._waiting_since_s = None
        self.ask()

    def data_received(self, data: bytes) -> None:
        received_s = monotonic()
        self._received += data
        if len(self._received) >= PONG.size:
            ping, remote_monotonic_ns, remote_epoch_ns = PONG.unpack_from(self._received)
            self._received = b""
            self._waiting_since_s = None
            (sent_ns,) = _PING.unpack(ping)
            self._heard(ClockReading(sent_ns / 1e9, remote_monotonic_ns / 1e9, remote_epoch_ns / 1e9, received_s))

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True

    def ask(self) -> None:
        if self._waiting_since_s is None and self._transport is not None:
            self._waiting_since_s = monotonic()
            self._transport.write(_PING.pack(monotonic_ns()))

    def is_over(self, now: float) -> bool:
        return self._ended or (self._waiting_since_s is not None and now - self._waiting_since_s > _PATIENCE_S)

    def close(self) -> None:
        self._heard = _ignore
        self._dialling.cancel()
        if self._transport is not None:
            self._transport.abort()


def _ignore(reading: ClockReading) -> None:
    pass


class ClockProbe:
    """Readings of the clocks of all peers, in a thread of its own. Methods may be called from any other thread."""

    def __init__(self, peers: Mapping[str, Tunnel], period_s: float = 0.2) -> None:
        self._thread = LoopThread("clock probe")
        self._peers, self._period_s = dict(peers), period_s
        self._readings: dict[str, list[ClockReading]] = {peer: [] for peer in peers}
        self._clocks: list[RemoteClock] = []

    def start(self) -> None:
        """Ask every peer, again and again, until `stop`."""
        self._thread.start()
        self._thread.call(self._start)

    def stop(self) -> None:
        """End the thread; the readings stay. May be called twice."""
        self._thread.stop(self._close)

    def readings(self, peer: str) -> list[ClockReading]:
        """All answers of a peer so far, in order. Raises KeyError for an unknown peer, as `last_answer_s` does."""
        return list(self._readings[peer])

    def last_answer_s(self, peer: str) -> float | None:
        """When the peer was heard last, in `time.monotonic`; None when it never was."""
        readings = self._readings[peer]
        return readings[-1].received_s if readings else None

    def _start(self) -> None:
        for peer, tunnel in self._peers.items():
            clock = RemoteClock(self._thread.tasks, tunnel, self._period_s, self._readings[peer].append)
            self._clocks.append(clock)
            clock.start()

    def _close(self) -> None:
        for clock in self._clocks:
            clock.close()
