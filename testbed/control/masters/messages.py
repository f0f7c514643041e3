"""What masters have in their log, tell each other, and want done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from testbed.consensus.messages import Message
from testbed.consensus.outputs import Send, Write
from testbed.control.messages import NodeEvent, PushConfig, RecordEvent, StartPod, StopPod
from testbed.control.store import Writes

# --- in the log ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Decision:
    """An entry: what was written, and what nodes are to be told once that is committed, by the master to which they are
    connected then. `registered` is a node that has registered with it, and its session."""

    writes: Writes
    orders: tuple[StartPod | StopPod, ...] = ()
    registered: tuple[str, int] | None = None


# --- between masters -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Join:
    """From a follower that has found a leader: what it passes on from now on has that number of a `stream`, which is
    never the same twice. `identity` holds no Lease any more."""

    sender: str
    stream: int
    identity: str


@dataclass(frozen=True, slots=True)
class Joined:
    """The leader takes it, and still leads: who has applied its log until `index` knows all that was acknowledged."""

    stream: int
    index: int


@dataclass(frozen=True, slots=True)
class PassOn:
    """What a node has said to a follower, the so manieth thing of the stream."""

    sender: str
    stream: int
    number: int
    place: str
    session: int
    event: NodeEvent


@dataclass(frozen=True, slots=True)
class Missed:
    """The leader has not had all of the stream: it is joined again, and what nodes have is listed again."""

    stream: int


PeerMessage = Message | Join | Joined | PassOn | Missed

# --- wanted done -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Serves:
    """From now on places may connect, and those that are connected, each by its session, list again what is there:
    whoever leads in that term may not have heard it."""

    term: int
    sessions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Heard:
    """There is somebody who leads, and the place is connected."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A place believes to be connected, and is not."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Of that session: what comes too late for it is not for the place any more."""

    place: str
    session: int
    what: StartPod | StopPod | PushConfig | Heard | Closed


@dataclass(frozen=True, slots=True)
class Answered:
    number: int
    answer: object = None
    error: Exception | None = None


class NotLeading(Exception):
    """Another one may know better. What was asked may be done all the same where this comes late."""


Output = Write | Send[PeerMessage] | Serves | Tell | RecordEvent | Answered
