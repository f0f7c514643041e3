"""What faults do to the world, as values that `emulation` applies and reverts under the fault's name.

Every effect names its target. One that `lasts` is in force from when it is applied until it is reverted; several on one
target are layers, so that each can be reverted whatever else is in force. The others have nothing to undo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class LinkEffect:
    """What is done to one direction of a link, on top of its declared quality.

    Delays and jitter add up, losses combine as independent chances, the narrowest bandwidth holds, a cut is a cut.
    """

    cut: bool = False
    added_delay_s: float = 0.0
    added_jitter_s: float = 0.0
    added_loss: float = 0.0
    bandwidth_bits_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class ImpairLinks:
    """Directed links are worse than declared. Undone: they are what the other effects upon them make."""

    lasts: ClassVar = True

    pairs: tuple[tuple[str, str], ...]
    effect: LinkEffect


@dataclass(frozen=True, slots=True)
class CutPower:
    """A node is without power: its processes die, behind links that are silent already.

    Undone, and with no other power cut in force: the kubelet registers again and restarts the pods that are still bound
    to the node.
    """

    lasts: ClassVar = True

    node: str


@dataclass(frozen=True, slots=True)
class KillPods:
    """Every process of some pods ends at once on nodes that live: their peers see resets. The kubelet restarts them.

    Either `pod`, or the first `count` ready pods of `service` (in `zone`, if given) in name order.
    """

    lasts: ClassVar = False

    pod: str | None = None
    service: str | None = None
    zone: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class KillMaster:
    """The process of a master ends at once, at a place that lives: who supervises it starts it again."""

    lasts: ClassVar = False

    place: str


@dataclass(frozen=True, slots=True)
class PauseMaster:
    """The process of a master does nothing, but is there. Undone: it goes on, and has noticed nothing."""

    lasts: ClassVar = True

    place: str


@dataclass(frozen=True, slots=True)
class CutMasterPower:
    """The place of a master is without power: its process dies, behind links that are silent already.

    Undone, and with no other power cut in force: it begins again, with what is on its disk.
    """

    lasts: ClassVar = True

    place: str


@dataclass(frozen=True, slots=True)
class PowerOffMachine:
    """A machine of the Ray cluster, by its host name or node address, loses its power with every place on it, for good.

    `command` is what does it, run where the scenario was started. It is the real thing: no link is cut for it.
    """

    lasts: ClassVar = False

    machine: str
    command: tuple[str, ...]


Effect = ImpairLinks | CutPower | KillPods | KillMaster | PauseMaster | CutMasterPower | PowerOffMachine
