"""What the links between places are like right now, and what was measured of them.

Owns the declared table with the effects of faults layered on top. Pure values: no threads, no clock, no sockets; what
happens to a byte is in `directed_link`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from testbed.faults.effects import LinkEffect
from testbed.objects.places import LinkQuality, Topology

Pairs = Iterable[tuple[str, str]]
"""Directed links: source and destination."""


@dataclass(frozen=True, slots=True)
class LinkSample:
    """What one direction of a link did in one second.

    `second` is a whole second of the `time.monotonic` of its machine. A second in which the declared quality changed
    has a row for each.
    `declared_ms` is the delay alone, with what faults add to it. Expected is how long the declaration makes the bytes
    of this second take: the delay and its jitter, their own time at the link's bandwidth, waiting behind bytes before
    them, and retransmission; not the time behind a cut. Achieved is how long they took from read to write inside the
    relay. A written-through byte counts as 0 ms. Between machines, what the network takes is added to achieved.
    `dropped` counts lost transmissions.
    """

    second: float
    source: str
    destination: str
    declared_ms: float
    expected_p50_ms: float
    achieved_p50_ms: float
    achieved_p99_ms: float
    bytes: int
    dropped: int


class LinkTable:
    """Declared qualities and, by name, the faults upon them.

    Effects are layers: overlapping faults come and go in any order, and each leaves exactly what the others make.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._effects: dict[tuple[str, str], dict[str, LinkEffect]] = {}
        self._current: dict[tuple[str, str], LinkQuality] = {}

    def impose(self, fault: str, pairs: Pairs, effect: LinkEffect) -> None:
        """Put an effect on directed pairs. A second one by the same fault on the same pair replaces the first.

        Raises KeyError for a place that the topology does not have; then nothing is changed.
        """
        pairs = tuple(pairs)
        for source, destination in pairs:
            self._topology.place(source)
            self._topology.place(destination)
        for pair in pairs:
            self._effects.setdefault(pair, {})[fault] = effect
            self._current.pop(pair, None)

    def lift(self, fault: str) -> None:
        """Take back all that the fault imposed; nothing when there is nothing."""
        for pair in [pair for pair, effects in self._effects.items() if fault in effects]:
            del self._effects[pair][fault]
            if not self._effects[pair]:
                del self._effects[pair]
            self._current.pop(pair, None)

    def quality(self, source: str, destination: str) -> LinkQuality:
        """Quality of one direction as it is now. Raises KeyError for an unknown place."""
        quality = self._current.get((source, destination))
        if quality is None:
            quality = self._topology.quality(source, destination)
            # By name: sums of floats depend on their order, and the order of faults must not matter.
            for _, effect in sorted(self._effects.get((source, destination), {}).items()):
                quality = _layered(quality, effect)
            self._current[source, destination] = quality
        return quality

    def worsened(self, pairs: Pairs, effect: LinkEffect) -> tuple[tuple[str, str], ...]:
        """Those of the directed pairs that the effect would make worse than they are. One that is cut is as bad as can
        be."""
        now = ((pair, self.quality(*pair)) for pair in pairs)
        return tuple(pair for pair, quality in now if not quality.cut and _layered(quality, effect) != quality)

    def passable(self, source: str, destination: str) -> bool:
        """Whether a TCP handshake gets through: neither direction is cut."""
        return not (self.quality(source, destination).cut or self.quality(destination, source).cut)


def _layered(quality: LinkQuality, effect: LinkEffect) -> LinkQuality:
    bandwidths = [b for b in (quality.bandwidth_bits_per_s, effect.bandwidth_bits_per_s) if b is not None]
    return LinkQuality(
        delay_s=quality.delay_s + effect.added_delay_s,
        jitter_s=quality.jitter_s + effect.added_jitter_s,
        bandwidth_bits_per_s=min(bandwidths, default=None),
        loss=1 - (1 - quality.loss) * (1 - effect.added_loss) if effect.added_loss else quality.loss,
        cut=quality.cut or effect.cut,
    )
