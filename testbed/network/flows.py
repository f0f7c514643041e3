"""What happens to bytes on a link: delay, jitter, bandwidth, loss and cuts, one direction at a time.

Owns a directed link as its relay sees it (`Link`) and one direction of one connection (`Flow`). Not who may connect
where, which is `relay`, nor what quality holds, which is `links`. For one event loop's thread only.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections import deque
from collections.abc import Callable
from random import Random
from time import monotonic
from typing import cast

from testbed.control.topology import LinkQuality
from testbed.network.links import LinkSample
from testbed.network.timer import PreciseTimer, TimerHandle

SYN_TIMEOUT_S = 1.0
"""Initial retransmission time-out of a handshake (RFC 6298, 2.1)."""

_RTO_MIN_S = 0.2
"""Linux TCP_RTO_MIN: what a lost segment costs at least, on top of the round trip."""
_RTO_MAX_S = 120.0
_RETRIES_MAX = 15
_SEGMENT_BYTES = 1448
_WINDOW_BYTES = 4 << 20
"""Linux' largest default send buffer (tcp_wmem): what a connection has under way at most."""
_WINDOW_MIN_BYTES = 256 << 10
_SLICE_S = 0.005
_RESERVOIR = 512
_LEAD_S = 30e-6
_LEAD_MAX_S = 200e-6
_LEAD_STEP_S = 2e-6
"""How much earlier the timer is set, because a thread needs time to wake up and to write: at first, at most, and by how
much each arrival corrects it."""
_ABORTIVE_CLOSE = struct.pack("ii", 1, 0)

# Bytes, or something that happens when the byte at this place of the stream would arrive: SYN, FIN, RST.
Payload = bytes | memoryview | Callable[[], object]


class Link:
    """One direction between two places, shared by all connections of one relay.

    `open` is true when bytes may be written straight through, `slice_bytes` is how much of a large write may arrive in
    one piece (None: all of it), `window_bytes` how much of one connection may be under way, `rto_s` the retransmission
    time-out of data. `underlay_s` is what the real network below takes of the declared delay, and more if it is slower;
    `lead_s` how much before its time an arrival has to be begun.
    """

    def __init__(self, source: str, destination: str, quality: LinkQuality, random: Random) -> None:
        self.source = source
        self.destination = destination
        self.flows: dict[Flow, None] = {}
        self.bytes = 0
        self.underlay_s = 0.0
        self.lead_s = _LEAD_S
        self._dropped = 0
        self._random = random
        self._sampling = Random(0)
        self._busy_until_s = 0.0
        self._delays_s: list[float] = []
        self._delays_seen = 0
        self._set(quality)

    def _set(self, quality: LinkQuality) -> None:
        self.quality = quality
        self.open = quality.is_ideal
        self.cut = quality.cut
        # Linux adds its minimum to the measured round trip.
        self.rto_s = _RTO_MIN_S + 2 * quality.delay_s
        self.window_bytes = _WINDOW_BYTES
        self.slice_bytes: int | None = None
        if quality.bandwidth_bits_per_s is not None:
            bytes_per_s = quality.bandwidth_bits_per_s / 8
            self.window_bytes = max(_WINDOW_MIN_BYTES, int(bytes_per_s * quality.delay_s))
            self.slice_bytes = max(_SEGMENT_BYTES, int(bytes_per_s * _SLICE_S))

    def change(self, quality: LinkQuality) -> None:
        """From now on the link is like this. When it ends a cut, what waited is sent anew."""
        was_cut = self.cut
        self._set(quality)
        if was_cut and not self.cut:
            self._busy_until_s = 0.0
            for flow in tuple(self.flows):
                flow.resend()

    def arrival_s(self, now: float, size_bytes: int, rto_s: float) -> float:
        """When something sent now arrives, a time of `time.monotonic`. TCP shows loss as delay."""
        quality = self.quality
        sent_s = now
        if quality.bandwidth_bits_per_s is not None:
            sent_s = max(now, self._busy_until_s) + size_bytes * 8 / quality.bandwidth_bits_per_s
            self._busy_until_s = sent_s
        delay_s = quality.delay_s - self.underlay_s
        if quality.jitter_s:
            delay_s += self._random.uniform(-quality.jitter_s, quality.jitter_s)
        delay_s = max(0.0, delay_s)
        if quality.loss:
            delay_s += self._retransmission_s(size_bytes, rto_s)
        return sent_s + delay_s

    def _retransmission_s(self, size_bytes: int, rto_s: float) -> float:
        """Time lost to retransmission time-outs, which double from loss to loss (RFC 6298, 5.5)."""
        loss = self.quality.loss
        segments = max(1, math.ceil(size_bytes / _SEGMENT_BYTES))
        lost_s = 0.0
        chance = 1 - (1 - loss) ** segments
        for _ in range(_RETRIES_MAX):
            if self._random.random() >= chance:
                break
            self._dropped += 1
            lost_s += rto_s
            rto_s = min(2 * rto_s, _RTO_MAX_S)
            chance = loss
        return lost_s

    def record(self, sent_s: float, due_s: float) -> None:
        """A chunk has just arrived. Learn from it how early to begin, and note how long it took.

        The lead follows the median of the lateness in small steps (Ma, Muthukrishnan and Sandler: Frugal Streaming for
        Estimating Quantiles), because that differs between machines, and between links that are busy and idle. Of the
        delays of a second's chunks a bounded random choice is kept.
        """
        now = monotonic()
        if now > due_s:
            self.lead_s = min(self.lead_s + _LEAD_STEP_S, _LEAD_MAX_S)
        else:
            self.lead_s = max(self.lead_s - _LEAD_STEP_S, 0.0)
        delay_s = now - sent_s + self.underlay_s
        self._delays_seen += 1
        if len(self._delays_s) < _RESERVOIR:
            self._delays_s.append(delay_s)
        elif (at := int(self._sampling.random() * self._delays_seen)) < _RESERVOIR:
            self._delays_s[at] = delay_s

    def take_sample(self, second: int) -> LinkSample | None:
        """What happened since the last call; None when nothing did."""
        if not (self.bytes or self._dropped or self._delays_s):
            return None
        delays_s = sorted(self._delays_s) or [self.underlay_s]
        sample = LinkSample(
            second=second,
            source=self.source,
            destination=self.destination,
            declared_ms=self.quality.delay_s * 1e3,
            achieved_p50_ms=delays_s[len(delays_s) // 2] * 1e3,
            achieved_p99_ms=delays_s[len(delays_s) * 99 // 100] * 1e3,
            bytes=self.bytes,
            dropped=self._dropped,
        )
        self.bytes = self._dropped = self._delays_seen = 0
        self._delays_s.clear()
        return sample


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
        self._queue: deque[tuple[float, float, int, Payload]] = deque()  # due, sent, bytes, what
        self._queued_bytes = 0
        self._last_due_s = 0.0
        self._write: Callable[[bytes | memoryview], object] = _discard
        self._lost = False
        self._read_to_end = False
        self._end_arrived = False
        self._reading = True
        self._peer_full = False
        link.flows[self] = None

    # --- what asyncio calls ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transports in all but their bases.
        transport = cast(asyncio.Transport, transport)
        if self._lost:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=_WINDOW_MIN_BYTES)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = transport
        self.peer._write = transport.write
        if self._on_connected is not None:
            self._on_connected()

    def data_received(self, data: bytes) -> None:
        link = self.link
        if link.open and not self._queue:
            link.bytes += len(data)
            self._write(data)
            return
        step = link.slice_bytes
        if step is None or len(data) <= step:
            self._put(data, len(data), monotonic(), link.rto_s)
            return
        now, view = monotonic(), memoryview(data)
        for start in range(0, len(data), step):
            piece = view[start : start + step]
            self._put(piece, len(piece), now, link.rto_s)

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
        """Call `event` when it arrives at the other end, behind all that was sent before, `elapsed_s` ago."""
        if self.link.open and not self._queue:
            event()
        else:
            self._put(event, 0, monotonic() - elapsed_s, self.link.rto_s if rto_s is None else rto_s)

    def resend(self) -> None:
        """Send again all that has not arrived: a cut swallowed it."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        waiting, now = tuple(self._queue), monotonic()
        self._queue.clear()
        self._queued_bytes = 0
        self._last_due_s = 0.0
        for _, _, size_bytes, payload in waiting:
            self._put(payload, size_bytes, now, self.link.rto_s)

    def close(self, *, reset: bool = False) -> None:
        """End both directions at once, as an ordinary close (after what is written already) or with a reset."""
        for flow in (self, self.peer):
            flow._drop()
            flow._lost = True
            flow.link.flows.pop(flow, None)
            if flow.transport is not None:
                if reset:
                    abort(flow.transport)
                else:
                    flow.transport.close()

    # --- the way of one payload --------------------------------------------------------------------------------

    def _put(self, payload: Payload, size_bytes: int, now: float, rto_s: float) -> None:
        if self.link.cut:
            due = math.inf
        else:
            due = self._last_due_s = max(self._last_due_s, self.link.arrival_s(now, size_bytes, rto_s))
        self._queue.append((due, now, size_bytes, payload))
        self._queued_bytes += size_bytes
        if self._queued_bytes > self.link.window_bytes and self._reading:
            self._update_reading()
        if self._alarm is None and not self.link.cut:
            self._alarm = self._timer.call_at(due - self.link.lead_s, self._arrive)

    def _arrive(self) -> None:
        self._alarm = None
        link, queue = self.link, self._queue
        if link.cut:
            return
        until_s = monotonic() + link.lead_s
        while queue and queue[0][0] <= until_s:
            due, sent, size_bytes, payload = queue.popleft()
            if callable(payload):
                payload()
            else:
                self._queued_bytes -= size_bytes
                link.bytes += size_bytes
                self._write(payload)
                link.record(sent, due)
        if queue and self._alarm is None:
            self._alarm = self._timer.call_at(queue[0][0] - link.lead_s, self._arrive)
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
        self._queue.clear()
        self._queued_bytes = 0
        self._write = _discard

    def _update_reading(self) -> None:
        reading = not self._peer_full and self._queued_bytes <= self.link.window_bytes
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
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE_CLOSE)
    transport.abort()


def _discard(data: bytes | memoryview) -> None:
    pass
