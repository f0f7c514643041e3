"""What a master's process and its supervisor tell each other, as pickles over a socket that both have.

Times are monotonic seconds of their machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed.control.messages import Event, RecordEvent, StartPod, StopPod
from testbed.objects.timings import Timings
from testbed.objects.workloads import MeshMode

# --- to the process --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The first message: from now on it is a master. Until then the process is only warm, so that no start of an
    interpreter is measured as recovery."""

    name: str
    volume: Path
    """Its disk, which outlives the process."""
    timings: Timings
    mesh_mode: MeshMode
    clients: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Told:
    """What one place has to say; the emulated link delivered it then."""

    place: str
    arrived_s: float
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """To be answered by Answered: the name of one of its methods, with arguments."""

    number: int
    method: str
    arguments: tuple[object, ...]


ToMaster = Begin | Told | Asked

# --- from the process ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leads:
    """From now on it decides, in this term of the log. What places said before it may not know, so they connect anew
    and say it again; what they say to it carries the term."""

    term: int


@dataclass(frozen=True, slots=True)
class EncodedPush:
    """A PushConfig whose resources are serialised: `google.protobuf.Any` messages, or JSON for who is no Envoy."""

    proxy: str
    place: str
    type_url: str
    version: str
    resources: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Pushed:
    """A push, with what it is made of: digests of `pushed.Contents`, and those contents that are new."""

    push: EncodedPush
    digests: tuple[bytes, ...]
    contents: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Answered:
    number: int
    answer: object = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Late:
    """Its loop was held up: it came late by that much to what was due then."""

    due_s: float
    late_s: float


Decided = StartPod | StopPod | Pushed | RecordEvent
"""What it wants done. All that it follows from is durable."""
FromMaster = Leads | Decided | Answered | Late
