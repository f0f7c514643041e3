"""What happens in a session, as whoever watches it is told: progress lines, the facts of a run, the log of defects.

Times are the driver's monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from testbed.control.cells.operations import PlannedStep
from testbed.control.placement import Hosting
from testbed.emulation.actors.locust_process import LoadProgress
from testbed.emulation.actors.reports import Readiness, Recorded
from testbed.faults.impact import Impact
from testbed.objects.cells import Layer
from testbed.objects.core import Pod
from testbed.results.tables.facts import LocustCount


@dataclass(frozen=True, slots=True)
class ConnectingToRay:
    """To the one at `address`, or to one that is started on this machine."""

    address: str | None


@dataclass(frozen=True, slots=True)
class MachinesJoined:
    """More machines than before are part of Ray, and not yet as many as are wanted."""

    names: tuple[str, ...]
    wanted: int

    def __str__(self) -> str:
        return f"{len(self.names)} of {self.wanted} machines have joined Ray: {', '.join(self.names)}"


@dataclass(frozen=True, slots=True)
class BringingUp:
    name: str
    nodes: int
    pods: int
    machines: tuple[str, ...]
    profile: str
    seed: int
    hosting: Hosting


@dataclass(frozen=True, slots=True)
class ComingUp:
    """How far the bring-up is: `answering` of all `actors` are up; what of the objects is there, once all are."""

    answering: int
    actors: int
    readiness: Readiness | None


@dataclass(frozen=True, slots=True)
class Ready:
    """All is as declared, `after_s` since it was ordered."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Applied:
    """Objects (kind and name) were created or changed, and all is as declared again."""

    objects: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class TimeBegins:
    """A person drives the session from now on; times in its records count from `t0_s`."""

    t0_s: float


@dataclass(frozen=True, slots=True)
class ChangeBegun:
    """A person has applied and deleted objects (kind and name), under a name for the change itself."""

    change: str
    objects: tuple[tuple[str, str], ...]
    at_s: float


@dataclass(frozen=True, slots=True)
class ChangeSettled:
    """All is as declared after that."""

    change: str
    at_s: float


@dataclass(frozen=True, slots=True)
class LoadStarted:
    """The first request is due at `t0_s`. `duration_s` is infinite where a person will stop it."""

    t0_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class LoadReported:
    """The newest figures of every origin zone."""

    at_s: float
    zones: Mapping[str, LoadProgress]


@dataclass(frozen=True, slots=True)
class RecordsCollected:
    """What the cluster's actors have recorded since the last time, and every pod that ever ran, with its start."""

    events: Sequence[Recorded]
    pods: Sequence[tuple[Pod, float]]


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """Load generators ended that should not have; a line for each."""

    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadStopping:
    """Nothing more is sent; what is under way is waited for."""

    at_s: float


@dataclass(frozen=True, slots=True)
class LoadEnded:
    """With Locust's own count for each origin zone that has one."""

    counts: Mapping[str, LocustCount]


@dataclass(frozen=True, slots=True)
class GuestsWelcome:
    """Any Locust may join, by origin zone: with the line to type, and the addresses of Locust's own pages; both on the
    machine of these clients, which has a name in `machines` where it is not the driver's."""

    lines: Mapping[str, str]
    pages: Mapping[str, str]
    machines: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GuestsLeft:
    """By origin zone: what Locusts that somebody else started have counted themselves, and how many ended before they
    could."""

    counts: Mapping[str, LocustCount]
    uncounted: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FaultApplied:
    """`due_s` is when it should have come; it `lasts` if there is something to heal."""

    fault: str
    due_s: float
    impact: Impact
    lasts: bool = False


@dataclass(frozen=True, slots=True)
class FaultHealed:
    fault: str
    due_s: float
    at_s: float


@dataclass(frozen=True, slots=True)
class DataPromoted:
    """Before a step, leaders of a store were asked for where its partitions go. `missing` are the replicas that did not
    know by then that they lead."""

    step: PlannedStep
    began_s: float
    at_s: float
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WritesHeld:
    """A step is over during which writes of what it moved were forbidden. `at_s` is when that `began`, and when each of
    its phases was over (`control.cells.phases`), or it was `given up` because replication had not caught up; the new
    owner `lacked` so many writes when that was waited for. `missing` are the replicas that could not be told to take
    none."""

    step: PlannedStep
    at_s: Mapping[str, float]
    lacked: int
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MapChanged:
    """A step of an operation: there is a new version of the partition map, and the first proxies are told."""

    step: PlannedStep
    version: int
    at_s: float


@dataclass(frozen=True, slots=True)
class MapDelivered:
    """All proxies of a layer that the control plane can reach have acknowledged; `at_s` is None where they were waited
    for in vain. `missing` are those that had not, also where they cannot be reached."""

    step: PlannedStep
    layer: Layer
    at_s: float | None
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MachinesLost:
    """Machines fell silent though nobody ordered it."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """The session is not what it should be; what was measured is kept. Each reason is told once.

    `defect` is the exception behind it where that should not have happened.
    """

    why: str
    defect: Exception | None = None


@dataclass(frozen=True, slots=True)
class GoingDown:
    """A person has ended the session: nothing that comes now counts."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The user wants it to end."""


SessionEvent = (
    ConnectingToRay
    | MachinesJoined
    | BringingUp
    | ComingUp
    | Ready
    | Applied
    | Deleted
    | TimeBegins
    | ChangeBegun
    | ChangeSettled
    | LoadStarted
    | LoadReported
    | RecordsCollected
    | LoadFailed
    | LoadStopping
    | LoadEnded
    | GuestsWelcome
    | GuestsLeft
    | FaultApplied
    | FaultHealed
    | DataPromoted
    | WritesHeld
    | MapChanged
    | MapDelivered
    | MachinesLost
    | Broken
    | GoingDown
    | Interrupted
)

Watcher = Callable[[SessionEvent], None]
"""Whoever is told, at once and in the order in which things happen; from the event loop, so it must not wait."""
