"""One direction of one connection: what is read from one socket is written to another when it arrives there.

Owns the transports and the one timer of a direction (`Flow`). When things arrive is `directed_link`, who may connect
where `attachment`. For one event loop's thread only.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Callable
from time import monotonic
from typing import cast

from testbed.network.directed_link import WINDOW_MIN_BYTES, Link, Queue
from testbed.network.wire.timer import PreciseTimer, TimerHandle

SYN_TIMEOUT_S = 1.0
"""Initial retransmission time-out of a handshake (RFC 6298, 2.1)."""

_EARLY_S = 80e-6
"""How much too early something may arrive, rather than that the relay wakes up once more for it."""

ABORTIVE_CLOSE = struct.pack("ii", 1, 0)


class Flow(asyncio.Protocol):
    """One direction of one connection: what it reads from its own transport arrives at the transport of its peer.

    Data, end of stream and reset travel in order. During a cut they wait, and so does what was under way when it
    began: all of it is sent when the cut ends, as TCP's retransmission would. Each direction of a link can be cut
    alone; acknowledgements are not modelled, so data needs its own direction only.
    """

    peer: Flow

    def __init__(self, link: Link, timer: PreciseTimer, on_connected: Callable[[], object] | None = None) -> None:
        self.link = link
        self._on_connected = on_connected
        self.transport: asyncio.Transport | None = None
        self._timer = timer
        self._alarm: TimerHandle | None = None
        self.queue = Queue(link)
        self._write: Callable[[bytes | memoryview], object] = _discard
        self._lost = False
        self._read_to_end = False
        self._end_arrived = False
        self._reading = True
        self._peer_full = False
        link.traffic[self] = None

    # --- what asyncio calls ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transports in all but their bases.
        transport = cast(asyncio.Transport, transport)
        if self._lost:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WINDOW_MIN_BYTES)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = transport
        self.peer._write = transport.write
        if self._on_connected is not None:
            self._on_connected()

    def data_received(self, data: bytes) -> None:
        link = self.link
        if link.open and not self.queue:
            link.bytes += len(data)
            self._write(data)
            return
        queue, timer = self.queue, self._timer
        queue.send(data, len(data), timer.heard_s())
        timer.stay_until_next()
        if queue.bytes > link.window_bytes and self._reading:
            self._update_reading()
        self._set_alarm()

    def eof_received(self) -> bool:
        self._read_to_end = True
        self.send(self._end)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """The near end reset the connection (or it was closed here, which ends in nothing)."""
        if self._lost:
            return
        self._lost = self._read_to_end = True
        self.peer._drop()
        if self.peer.transport is None:
            self.close()
        else:
            self.send(self._reset)

    def pause_writing(self) -> None:
        self.peer._peer_full = True
        self.peer._update_reading()

    def resume_writing(self) -> None:
        self.peer._peer_full = False
        self.peer._update_reading()

    # --- what the relay calls ----------------------------------------------------------------------------------

    def send(self, event: Callable[[], object], rto_s: float | None = None, elapsed_s: float = 0.0) -> None:
        """Call `event` when it arrives at the other end, behind all that was sent before, `elapsed_s` ago.

        `rto_s`: what its loss costs at first, where that is not what the loss of data does.
        """
        if self.link.open and not self.queue:
            event()
        else:
            self.queue.send(event, 0, monotonic() - elapsed_s, rto_s)
            self._set_alarm()

    def retimed(self) -> None:
        """The link has changed, and with it when what is under way arrives."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._set_alarm()

    def close(self, *, reset: bool = False) -> None:
        """End both directions at once, as an ordinary close (after what is written already) or with a reset."""
        for flow in (self, self.peer):
            flow._drop()
            flow._lost = True
            flow.link.traffic.pop(flow, None)
            if flow.transport is not None:
                if reset:
                    abort(flow.transport)
                else:
                    flow.transport.close()

    # --- the way of one payload --------------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        if self._alarm is None and (due_s := self.queue.due_s) < math.inf:
            self._alarm = self._timer.call_at(due_s - self.link.lead_s, self._arrive, _EARLY_S)

    def _arrive(self) -> None:
        self._alarm = None
        link, queue = self.link, self.queue
        until_s = monotonic() + link.lead_s + _EARLY_S
        while queue.due_s <= until_s:
            transit = queue.pop()
            payload = transit.payload
            if callable(payload):
                payload()
            else:
                link.bytes += transit.size_bytes
                self._write(payload)
                link.record(transit, monotonic())
        self._set_alarm()
        if not self._reading:
            self._update_reading()

    def _end(self) -> None:
        self._end_arrived = True
        target = self.peer.transport
        if self.peer._end_arrived:
            self.close()
        elif target is not None and not target.is_closing():
            target.write_eof()

    def _reset(self) -> None:
        self.close(reset=True)

    def _drop(self) -> None:
        """Forget what is under way and ignore what may still be read: nobody is there to receive it."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self.queue.take_all()
        self._write = _discard

    def _update_reading(self) -> None:
        reading = not self._peer_full and self.queue.bytes <= self.link.window_bytes
        if reading == self._reading or self._read_to_end:
            return
        if self.transport is not None and not self.transport.is_closing():
            self._reading = reading
            if reading:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()


def abort(transport: asyncio.Transport) -> None:
    """Close with a reset, as the kernel of a node does for a process that is gone."""
    if not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTIVE_CLOSE)
    transport.abort()


def _discard(data: bytes | memoryview) -> None:
    pass
