"""What goes in and out of a node's life: events (what happened on it) and actions (what is to be done on it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from testbed.control.kubelet.pod_lifecycle import ProbeFinished, ProbeKind, ProxyReady
from testbed.control.kubelet.process import Process
from testbed.control.messages import (
    LeaseRenewed,
    PodListed,
    PodReadinessChanged,
    PodStarted,
    PodStopped,
    StartPod,
    StopPod,
)
from testbed.objects.addresses import PodAddress
from testbed.objects.core import Pod

# --- events: what happens on the node --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PluggedIn:
    """The node is there, and has power for the first time."""


@dataclass(frozen=True, slots=True)
class Connected:
    """There is a control plane that may not have heard what the node said before."""


@dataclass(frozen=True, slots=True)
class PowerCut:
    """By a fault of that name. There is power while no fault has cut it."""

    fault: str


@dataclass(frozen=True, slots=True)
class PowerBack:
    fault: str


@dataclass(frozen=True, slots=True)
class Killed:
    """A fault ends every process of a pod, as `kill -9` does."""

    pod: str


@dataclass(frozen=True, slots=True)
class ShutDown:
    """The run is over: nothing is decided any more, only ended."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to Start. What is not among the `failures` has been running since, if it has not ended meanwhile."""

    start: Start
    address: PodAddress | None
    failures: Mapping[Process, str]


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ran has ended, whoever ended it. `life` is the number that it was started with."""

    pod: str
    process: Process
    life: int
    code: int
    last_lines: str = ""


@dataclass(frozen=True, slots=True)
class OfPod:
    pod: str
    event: ProbeFinished | ProxyReady


NodeEvent = (
    PluggedIn | Connected | PowerCut | PowerBack | Killed | ShutDown | Answered | Ended | OfPod | StartPod | StopPod
)

# --- actions: what is to be done on the node -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Start processes of a pod, each for the so manieth time. Answered by Answered, however long it takes."""

    pod: Pod
    lives: tuple[tuple[Process, int], ...]


@dataclass(frozen=True, slots=True)
class End:
    """End a process, in good order or as `kill -9` does. What runs answers with Ended; what does not run yet is ended
    again once its start is answered."""

    pod: str
    process: Process
    how: Literal["stop", "kill"]


@dataclass(frozen=True, slots=True)
class Probe:
    """Answered by ProbeFinished, at the latest when the probe's time-out ends, unless who carries it out was late."""

    pod: Pod
    kind: ProbeKind


@dataclass(frozen=True, slots=True)
class Register:
    """Tell the control plane of the node, of the pods that it has started, and of all on it that takes configuration.

    `booted`: the kubelet is up just now, so that there is nothing of that yet.
    """

    pods: tuple[PodListed, ...] = ()
    booted: bool = True


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the control plane."""

    event: LeaseRenewed | PodStarted | PodReadinessChanged | PodStopped


@dataclass(frozen=True, slots=True)
class RecordExit:
    """A process ended or did not start; for the table of events."""

    pod: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing of the pod is left, and nothing will come."""

    pod: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A defect in the handling of one pod. From now on it is left alone, all others are not."""

    pod: str
    error: Exception


NodeAction = Start | End | Probe | Register | Tell | RecordExit | Forget | Failed
