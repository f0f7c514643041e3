"""When what is sent over a link arrives: delay, jitter, bandwidth, loss, cuts, and what a change of them does.

Owns one direction between two places (`Link`), what of one connection is under way on it (`Queue`), and what was
measured of both. Pure: it is given the time, and moves no byte, which is `flows`. What quality holds is `links`'.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Protocol

from testbed.network.links import LinkSample
from testbed.objects.places import LinkQuality

_RTO_MIN_S = 0.2
"""Linux TCP_RTO_MIN: what a lost segment costs at least, on top of the round trip."""
_RTO_MAX_S = 120.0
_RETRIES_MAX = 15
_SEGMENT_BYTES = 1448
_WINDOW_BYTES = 4 << 20
"""Linux' largest default send buffer (tcp_wmem): what a connection has under way at most."""
WINDOW_MIN_BYTES = 256 << 10
_SLICE_S = 0.005
_RESERVOIR = 512
_LEAD_S = 30e-6
_LEAD_MAX_S = 200e-6
_LEAD_STEP_S = 2e-6
"""How much earlier the timer is set, because a thread needs time to wake up and to write: at first, at most, and by how
much each arrival corrects it."""

# Bytes, or something that happens when the byte at this place of the stream would arrive: SYN, FIN, RST.
Payload = bytes | memoryview | Callable[[], object]


@dataclass(slots=True, eq=False)
class Transit:
    """One payload on its way. Times are those of `time.monotonic`; all are infinite as long as the link is cut.

    Until `left_s`, its last bit waits for the bandwidth of the link; at `due_s` it arrives. Of the declared delay
    `spared_s` is not emulated, because the real network below takes it.
    """

    payload: Payload
    size_bytes: int
    sent_s: float
    rto_s: float | None
    number: int
    left_s: float = math.inf
    due_s: float = math.inf
    spared_s: float = 0.0
    luck: Luck | None = None
    """None before any was needed."""


@dataclass(slots=True)
class Luck:
    """What chance made of one payload: drawn once, so that a change of the link does not roll the dice anew."""

    jitter_draw: float | None = None
    loss_draw: float | None = None
    losses: int = 0


class Traffic(Protocol):
    """One direction of one connection, as its link sees it."""

    queue: Queue

    def retimed(self) -> None:
        """The times of what is in the queue have changed."""
        ...

    def close(self, *, reset: bool = False) -> None:
        """End the connection."""
        ...


class Link:
    """One direction between two places, shared by all connections of one relay.

    `open` is true when bytes may be written straight through, `slice_bytes` is how much of a large write may arrive in
    one piece (None: all of it), `window_bytes` how much of one connection may be under way. `lead_s` is how much before
    its time an arrival has to be begun. `constant_s` is how long everything is on its way, of whose declared delay
    `spared_s` is left out; None where that depends on more than the delay.
    """

    def __init__(self, source: str, destination: str, quality: LinkQuality, random: Random) -> None:
        self.source = source
        self.destination = destination
        self.traffic: dict[Traffic, None] = {}
        self.bytes = 0
        self._underlay_s = 0.0
        self.lead_s = _LEAD_S
        self.numbers = count()
        self._dropped = 0
        self._random = random
        self._sampling = Random(0)
        self._busy_until_s = 0.0
        self._times_s: list[tuple[float, float]] = []
        self._times_seen = 0
        self._set(quality)

    @property
    def underlay_s(self) -> float:
        """What the real network below takes of the declared delay, and more if it is slower."""
        return self._underlay_s

    @underlay_s.setter
    def underlay_s(self, underlay_s: float) -> None:
        self._underlay_s = underlay_s
        self._find_constant()

    def _find_constant(self) -> None:
        delay_s = self.quality.delay_s
        self.spared_s = min(self._underlay_s, delay_s)
        constant = self.quality == LinkQuality(delay_s)
        self.constant_s = delay_s - self.spared_s if constant else None

    def _set(self, quality: LinkQuality) -> None:
        self.quality = quality
        self.open = quality.is_ideal
        self.cut = quality.cut
        # Linux adds its minimum to the measured round trip.
        self._rto_s = _RTO_MIN_S + 2 * quality.delay_s
        self.window_bytes = _WINDOW_BYTES
        self.slice_bytes: int | None = None
        self._bytes_per_s = math.inf
        if quality.bandwidth_bits_per_s is not None:
            self._bytes_per_s = quality.bandwidth_bits_per_s / 8
            self.window_bytes = max(WINDOW_MIN_BYTES, int(self._bytes_per_s * quality.delay_s))
            self.slice_bytes = max(_SEGMENT_BYTES, int(self._bytes_per_s * _SLICE_S))
        self._find_constant()

    def change(self, quality: LinkQuality, now: float) -> None:
        """From now on the link is like this, for what is under way as well.

        What has not left is sent at the new bandwidth, in the order in which it came to the link. What has left
        arrives when it would have, or as if it had been sent now if that is sooner. A cut stops both, and when it ends
        all is sent anew.
        """
        was_cut, bytes_per_s = self.cut, self._bytes_per_s
        self._set(quality)
        self._busy_until_s = 0.0
        waiting = [(transit, each.queue) for each in self.traffic for transit in each.queue.take_all()]
        for transit, queue in sorted(waiting, key=lambda item: item[0].number):
            if self.cut:
                transit.left_s = transit.due_s = math.inf
                queue.append(transit)
                continue
            if was_cut:
                transit.sent_s = now
            if transit.left_s <= now:
                queue.hasten(transit, now)
            else:
                unsent_bytes = math.ceil(min(transit.size_bytes, (transit.left_s - now) * bytes_per_s))
                queue.line_up(transit, now, unsent_bytes)
        for each in tuple(self.traffic):
            each.retimed()

    def arrange(self, transit: Transit, now: float, unsent_bytes: int) -> None:
        """Say when this leaves and arrives if it is the next to be sent; `unsent_bytes` of it are still to leave."""
        if self.cut:
            return
        transit.left_s = now
        if self._bytes_per_s < math.inf:
            transit.left_s = self._busy_until_s = max(now, self._busy_until_s) + unsent_bytes / self._bytes_per_s
        transit.due_s = transit.left_s + self.travel_s(transit)

    def travel_s(self, transit: Transit) -> float:
        """How long it is on its way once it has left. TCP shows loss as delay."""
        quality = self.quality
        delay_s = quality.delay_s
        if quality.jitter_s:
            luck = transit.luck = transit.luck or Luck()
            if luck.jitter_draw is None:
                luck.jitter_draw = self._random.uniform(-1, 1)
            delay_s = max(0.0, delay_s + quality.jitter_s * luck.jitter_draw)
        transit.spared_s = min(self._underlay_s, delay_s)
        return delay_s - transit.spared_s + (self._retransmission_s(transit) if quality.loss else 0.0)

    def _retransmission_s(self, transit: Transit) -> float:
        """Time lost to retransmission time-outs, which double from loss to loss (RFC 6298, 5.5)."""
        loss = self.quality.loss
        luck = transit.luck = transit.luck or Luck()
        if luck.loss_draw is None:
            luck.loss_draw = self._random.random()
        segments = max(1, math.ceil(transit.size_bytes / _SEGMENT_BYTES))
        rto_s = self._rto_s if transit.rto_s is None else transit.rto_s
        lost_s, losses = 0.0, 0
        chance = 1 - (1 - loss) ** segments
        while losses < _RETRIES_MAX and luck.loss_draw < chance:
            losses += 1
            lost_s += rto_s
            rto_s = min(2 * rto_s, _RTO_MAX_S)
            chance *= loss
        self._dropped += max(0, losses - luck.losses)
        luck.losses = losses
        return lost_s

    def record(self, transit: Transit, now: float) -> None:
        """A chunk has just arrived. Learn from it how early to begin, and note how long it took and should have taken,
        by the declaration: delay, jitter, bandwidth, what went before it, retransmission.

        The lead follows the median of the lateness in small steps (Ma, Muthukrishnan and Sandler: Frugal Streaming for
        Estimating Quantiles), because that differs between machines, and between links that are busy and idle. Of the
        times of a second's chunks a bounded random choice is kept.
        """
        due_s, sent_s = transit.due_s, transit.sent_s
        if now > due_s:
            self.lead_s = min(self.lead_s + _LEAD_STEP_S, _LEAD_MAX_S)
        else:
            self.lead_s = max(self.lead_s - _LEAD_STEP_S, 0.0)
        times_s = now - sent_s + self._underlay_s, due_s - sent_s + transit.spared_s
        self._times_seen += 1
        if len(self._times_s) < _RESERVOIR:
            self._times_s.append(times_s)
        elif (at := int(self._sampling.random() * self._times_seen)) < _RESERVOIR:
            self._times_s[at] = times_s

    def take_sample(self, second: int) -> LinkSample | None:
        """What happened since the last call; None when nothing did."""
        if not (self.bytes or self._dropped or self._times_s):
            return None
        # What is written straight through takes what the network below takes.
        times_s = self._times_s or [(self._underlay_s, self.quality.delay_s)]
        achieved_s, expected_s = (
            sorted(achieved for achieved, _ in times_s),
            sorted(expected for _, expected in times_s),
        )
        sample = LinkSample(
            second=second,
            source=self.source,
            destination=self.destination,
            declared_ms=self.quality.delay_s * 1e3,
            expected_p50_ms=expected_s[len(expected_s) // 2] * 1e3,
            achieved_p50_ms=achieved_s[len(achieved_s) // 2] * 1e3,
            achieved_p99_ms=achieved_s[len(achieved_s) * 99 // 100] * 1e3,
            bytes=self.bytes,
            dropped=self._dropped,
        )
        self.bytes = self._dropped = self._times_seen = 0
        self._times_s.clear()
        return sample


class Queue:
    """What is under way of one direction of one connection. It arrives in the order in which it was sent.

    `due_s` is when the next payload arrives; infinite when none does.
    """

    def __init__(self, link: Link) -> None:
        self.bytes = 0
        self.due_s = math.inf
        self._link = link
        self._transits: deque[Transit] = deque()
        self._last_due_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._transits)

    def send(self, payload: Payload, size_bytes: int, sent_s: float, rto_s: float | None = None) -> None:
        """Send this behind all that was sent before. `rto_s`: retransmission time-out, None for that of data."""
        link = self._link
        if link.constant_s is None:
            transit = Transit(payload, size_bytes, sent_s, rto_s, next(link.numbers))
            self.line_up(transit, sent_s, size_bytes)
            return
        # What `line_up` comes to here, as fast as can be: this is done for almost every payload.
        due_s = sent_s + link.constant_s
        if due_s < self._last_due_s:
            due_s = self._last_due_s
        self._last_due_s = due_s
        if not self._transits:
            self.due_s = due_s
        self._transits.append(
            Transit(payload, size_bytes, sent_s, rto_s, next(link.numbers), sent_s, due_s, link.spared_s)
        )
        self.bytes += size_bytes

    def line_up(self, transit: Transit, now: float, unsent_bytes: int) -> None:
        """Have the last `unsent_bytes` of it sent, in pieces that the link can carry in a short time."""
        step, payload = self._link.slice_bytes, transit.payload
        if step is None or unsent_bytes <= step or callable(payload):
            self._link.arrange(transit, now, unsent_bytes)
            self.append(transit)
            return
        view = memoryview(payload)
        begin = 0
        while begin < len(view):
            end = min(len(view), max(begin, len(view) - unsent_bytes) + step)
            piece = Transit(view[begin:end], end - begin, transit.sent_s, transit.rto_s, transit.number)
            self._link.arrange(piece, now, end - max(begin, len(view) - unsent_bytes))
            self.append(piece)
            begin = end

    def hasten(self, transit: Transit, now: float) -> None:
        """It has left already; on the link as it is now it may arrive sooner."""
        spared_s = transit.spared_s
        if (sooner_s := now + self._link.travel_s(transit)) < transit.due_s:
            transit.due_s = sooner_s
        else:
            transit.spared_s = spared_s
        self.append(transit)

    def append(self, transit: Transit) -> None:
        transit.due_s = max(self._last_due_s, transit.due_s)
        if transit.due_s < math.inf:
            self._last_due_s = transit.due_s
        if not self._transits:
            self.due_s = transit.due_s
        self._transits.append(transit)
        self.bytes += transit.size_bytes

    def pop(self) -> Transit:
        """Take out the next payload. Raises IndexError when there is none."""
        transits = self._transits
        transit = transits.popleft()
        self.due_s = transits[0].due_s if transits else math.inf
        self.bytes -= transit.size_bytes
        return transit

    def take_all(self) -> list[Transit]:
        """Empty the queue, as if nothing had been sent over it."""
        transits = list(self._transits)
        self._transits.clear()
        self.bytes, self.due_s, self._last_due_s = 0, math.inf, 0.0
        return transits
