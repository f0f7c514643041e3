"""What a master's process and its supervisor tell each other, as pickles over a socket that both have.

Times are monotonic seconds of their machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from testbed.control.masters.messages import Answered, Serves, Tell
from testbed.control.messages import Event, RecordEvent, SessionEvent
from testbed.network.wire.peers import Peer
from testbed.objects.addresses import SocketAddress
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
    listen: SocketAddress | None = None
    """Where the other masters reach it; None where there are none."""
    peers: tuple[Peer, ...] = ()
    peer_secret: bytes = field(default=b"", repr=False)
    """By which masters know each other: what they send is pickled."""


@dataclass(frozen=True, slots=True)
class Said:
    """What one place says in that session; the emulated link delivered it then."""

    place: str
    session: int
    arrived_s: float
    events: tuple[Event | SessionEvent, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """To be answered by Answered: the name of one of the methods of `control.masters`, with arguments."""

    number: int
    method: str
    arguments: tuple[object, ...]


ToMaster = Begin | Said | Asked

# --- from the process ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EncodedPush:
    """A PushConfig whose resources are serialised: `google.protobuf.Any` messages, or JSON for who is no Envoy; of that
    session of its place."""

    proxy: str
    place: str
    type_url: str
    version: str
    resources: tuple[bytes, ...]
    session: int = 0


@dataclass(frozen=True, slots=True)
class Pushed:
    """A push, with what it is made of: digests of `pushed.Contents`, and those contents that are new."""

    push: EncodedPush
    digests: tuple[bytes, ...]
    contents: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Late:
    """Its loop was held up: it came late by that much to what was due then."""

    due_s: float
    late_s: float


FromMaster = Serves | Tell | Pushed | RecordEvent | Answered | Late
"""What is to be done follows from what is durable, at a majority of all masters."""

# --- to places -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leads:
    """That master serves from now on, and somebody leads in that term. `session` is by which the place is connected to
    it; None if it is not."""

    master: str
    term: int
    session: int | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """Whoever was connected to that master is so no more: its process has ended."""

    master: str


NodeCommand = Leads | Reset | Tell | EncodedPush
"""What reaches a place."""
