"""What a fault does to the world, as values that `emulation` carries out."""

from __future__ import annotations

from dataclasses import dataclass


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
class ImposeOnLinks:
    """Put an effect on directed links, under the fault's name so that exactly this can be lifted again."""

    fault: str
    pairs: tuple[tuple[str, str], ...]
    effect: LinkEffect


@dataclass(frozen=True, slots=True)
class LiftFromLinks:
    fault: str


@dataclass(frozen=True, slots=True)
class CrashNode:
    """Power off: the node is already silent when its processes die."""

    node: str


@dataclass(frozen=True, slots=True)
class BootNode:
    """Power on: the kubelet registers again and restarts the pods that are still bound to the node."""

    node: str


@dataclass(frozen=True, slots=True)
class KillPod:
    """Every process of one pod ends at once on a node that lives: its peers see resets.

    Either `pod`, or the first `count` ready pods of `service` (in `zone`, if given) in name order.
    """

    pod: str | None = None
    service: str | None = None
    zone: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class PowerOffMachine:
    """A machine of the Ray cluster, by its host name or node address, loses its power with every place on it.

    `command` is what does it, run where the scenario was started. It is the real thing: no link is cut for it.
    """

    machine: str
    command: tuple[str, ...]


Action = ImposeOnLinks | LiftFromLinks | CrashNode | BootNode | KillPod | PowerOffMachine
