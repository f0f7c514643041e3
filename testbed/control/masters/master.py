"""A master: one of those that agree upon the desired and the observed state by a log, without I/O and without a clock.

What every master does: it has the store that is committed, and tells the places that are connected to it what follows
from it (`delivery`, and what nodes are to start and stop). What the leader of the log does besides: it takes in what
users and nodes say, and runs the controllers (`leading`). What nodes say to another one is passed on to it.

So whatever anybody is told follows from what a majority has on its disks. A leader that was deposed, and does not know
yet, decides what is never committed: nobody carries it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from testbed.consensus.log import Entry
from testbed.consensus.outputs import Accepted, Apply, ReadReady, Refused, Restore, Role, RoleChanged, Send, Write
from testbed.consensus.replica import Outputs, Replica
from testbed.consensus.settings import Settings
from testbed.consensus.storage import Stored
from testbed.control.delivery.discovery import Discovery
from testbed.control.masters.leading import Leading
from testbed.control.masters.lease import LeaseKeeper
from testbed.control.masters.messages import (
    Answered,
    Closed,
    Decision,
    Heard,
    Join,
    Joined,
    Missed,
    NotLeading,
    Output,
    PassOn,
    PeerMessage,
    Serves,
    Tell,
)
from testbed.control.masters.places import Places
from testbed.control.masters.streams import Upstream
from testbed.control.messages import Apply as ApplyObject
from testbed.control.messages import (
    ConfigAcked,
    ConfigRejected,
    Delete,
    Event,
    Hello,
    LeaseRenewed,
    NodeEvent,
    NodeRegistered,
    Ping,
    ProxyConnected,
    SessionEvent,
)
from testbed.control.overview import Streams
from testbed.control.store import Store, Writes
from testbed.objects.core import Lease
from testbed.objects.timings import Timings
from testbed.objects.workloads import MeshMode

HEARTBEATS = 10
"""Of a leader, in an election time-out: etcd's are 100 ms and 1 s."""
SNAPSHOT_ENTRIES = 2000
_ALONE = Settings(election_timeout_s=10.0, heartbeat_s=1.0)
"""There is nobody to wait for, nor to be heard by."""


@dataclass(frozen=True, slots=True)
class Setup:
    """`clients` are the places from which load comes."""

    timings: Timings
    mesh_mode: MeshMode
    clients: tuple[str, ...] = ()


class Master:
    """`hear`, `receive`, `ask`, `persisted`; `advance` when `next_deadline()` has come, and `tick` when `next_tick()`
    has. All return what is to be done, in order. `now_s` is of its own clock, and never goes back."""

    def __init__(self, name: str, setup: Setup, stored: Stored, random: Random, now_s: float) -> None:
        self.name = name
        self._timings = setup.timings
        self._random = random
        self._now_s = now_s
        self._committed = Store()
        if isinstance(stored.snapshot.state, Writes):
            self._committed.redo(stored.snapshot.state)
        self._alone = len(stored.snapshot.membership.voters) == 1
        timeout_s = setup.timings.election_timeout_s
        # A time-out begins when a heartbeat is missed. Who is alone need not wait to see whether anybody leads.
        heartbeat_s = timeout_s / HEARTBEATS
        settings = _ALONE if self._alone else Settings(timeout_s + heartbeat_s, heartbeat_s)
        waited_s = 2 * _ALONE.election_timeout_s if self._alone else 0.0
        self.replica = Replica(name, stored, settings, random, now_s - waited_s)
        self._places = Places(Discovery(setup.timings, setup.mesh_mode, setup.clients))
        self._upstream: Upstream | None = None
        """While it follows a leader."""
        self._serving = False
        self.leading: Leading | None = None
        """While it leads."""
        self._lease = LeaseKeeper(f"{name}_{random.getrandbits(32):08x}", setup.timings, random)
        self._keeps_lease = not self._alone and setup.timings.leader_elect_lease_duration_s >= timeout_s
        """One that ends sooner would be over before anybody else can lead: then leadership is that of the log."""
        self._asked: list[tuple[int, str, tuple[Any, ...]]] = []
        """Of the only one, before it leads."""
        self._out: list[Output] = []

    # --- what goes in ----------------------------------------------------------------------------------------------

    def hear(
        self, place: str, session: int, events: Sequence[Event | SessionEvent], arrived_s: float, now_s: float
    ) -> list[Output]:
        """What a place says in that session; it arrived at `arrived_s`. Whoever is too busy to read its mail at once
        must not hold that against nodes: a lease counts from when it arrived."""
        self._now_s = now_s
        stranger = False
        for event in events:
            if isinstance(event, Hello) and self._serving:
                self._places.open(self._committed, place, session)
            stranger |= not self._places.has(place, session)
            if self._places.has(place, session):
                self._take_in(place, session, event, arrived_s)
        if stranger and self._serving:
            self._out.append(Tell(place, session, Closed()))
        return self._finish()

    def receive(self, message: PeerMessage, now_s: float) -> list[Output]:
        """From another master."""
        self._now_s = now_s
        match message:
            case Join():
                self._carry_out(self.replica.read(message, now_s))
            case Joined():
                if self._upstream is not None:
                    self._upstream.accept(message)
                    self._serve_once_known()
            case PassOn():
                if self.leading is not None:
                    self.leading.take_passed_on(message, now_s)
            case Missed(stream):
                if self._upstream is not None and self._upstream.number == stream:
                    self._join()
            case _:
                self._carry_out(self.replica.receive(message, now_s))
        return self._finish()

    def persisted(self, number: int, now_s: float) -> list[Output]:
        """The write of that number is on the disk, and so are all before it."""
        self._now_s = now_s
        self._carry_out(self.replica.persisted(number, now_s))
        return self._finish()

    def advance(self, now_s: float) -> list[Output]:
        self._now_s = now_s
        if self.leading is not None:
            self.leading.advance(now_s)
        return self._finish()

    def next_deadline(self) -> float | None:
        """None while there is nothing to decide or to tell before something is said."""
        deadlines = [self._places.next_deadline()]
        if self.leading is not None:
            deadlines.append(self.leading.next_deadline())
        return min((each for each in deadlines if each is not None), default=None)

    def tick(self, now_s: float) -> list[Output]:
        self._now_s = now_s
        self._carry_out(self.replica.tick(now_s))
        if self._upstream is not None:
            self._ask_to_join(self._upstream)
        if self.leading is not None:
            self.leading.mind_lease(now_s)
        return self._finish()

    def next_tick(self) -> float:
        """Of the log."""
        deadlines = [self.replica.next_deadline()]
        if self._upstream is not None:
            deadlines.append(self._upstream.next_deadline())
        if self.leading is not None:
            deadlines.append(self.leading.lease_deadline())
        return min(deadlines)

    def ask(self, number: int, method: str, arguments: tuple[Any, ...], now_s: float) -> list[Output]:
        """`streams`, or what can be asked of one that leads (`Leading.answer`): answered by NotLeading unless this one
        does."""
        self._now_s = now_s
        if method == "streams":
            self.say(Answered(number, self.streams()))
        elif self.leading is not None:
            self.leading.answer(number, method, arguments, now_s)
        elif self._alone:
            self._asked.append((number, method, arguments))
        else:
            self.say(Answered(number, error=NotLeading(f"{self.name} does not lead")))
        return self._finish()

    # --- places ----------------------------------------------------------------------------------------------------

    def _take_in(self, place: str, session: int, event: Event | SessionEvent, arrived_s: float) -> None:
        match event:
            case ProxyConnected() | ConfigAcked() | ConfigRejected():
                self._out += self._places.take(self._committed, place, event)
            case ApplyObject() | Delete():
                raise AssertionError(f"{place} has said {event}")
            case Hello() | Ping():
                pass
            case _:
                if isinstance(event, NodeRegistered) and event.booted:
                    self._places.boot(self._committed, place)
                self._pass_on(place, session, event, arrived_s)
        if isinstance(event, Hello | Ping | LeaseRenewed) and self._serving and not self._alone:
            self._out.append(Tell(place, session, Heard()))

    def _pass_on(self, place: str, session: int, event: NodeEvent, arrived_s: float) -> None:
        leader, upstream = self.replica.leader, self._upstream
        if self.leading is not None:
            self.leading.take(place, session, event, min(arrived_s, self._now_s))
        elif leader and upstream and (passed := upstream.pass_on(place, session, event)) is not None:
            self.send(leader, passed)

    # --- following -------------------------------------------------------------------------------------------------

    def _join(self) -> None:
        """The leader that was found. Until it has answered nobody new is served: this one may lack what others know."""
        self._serving = False
        self._upstream = Upstream(self.name, self._random.getrandbits(64), self._timings.election_timeout_s)
        self._ask_to_join(self._upstream)

    def _ask_to_join(self, upstream: Upstream) -> None:
        if self.replica.leader is not None and (join := upstream.join(self._lease.identity, self._now_s)) is not None:
            self.send(self.replica.leader, join)

    def _serve_once_known(self) -> None:
        upstream = self._upstream
        if not self._serving and upstream is not None and upstream.knows_all(self.replica.applied_index):
            self._serve()

    def _serve(self) -> None:
        self._serving = True
        self._out.append(Serves(self.replica.term, dict(self._places.sessions)))

    # --- leading ---------------------------------------------------------------------------------------------------

    def _lead(self, index: int) -> None:
        store = Store()
        store.redo(self._committed.everything())
        lease = self._lease if self._keeps_lease else None
        term, timings = self.replica.term, self._timings
        self.leading = leading = Leading(
            self.name, term, index, timings, store, lease, self, self._now_s, alone=self._alone
        )
        self._serve()
        leading.begin(self._now_s)
        asked, self._asked = self._asked, []
        for number, method, arguments in asked:
            leading.answer(number, method, arguments, self._now_s)

    def _yield(self) -> None:
        leading, self.leading = self.leading, None
        if leading is not None:
            leading.end()

    # --- what one that leads needs -----------------------------------------------------------------------------------

    @property
    def applied_index(self) -> int:
        return self.replica.applied_index

    def propose(self, decision: Decision) -> None:
        self._carry_out(self.replica.propose(None, decision, self._now_s))

    def streams(self) -> tuple[int, Streams]:
        return self.applied_index, self._places.streams(self._committed)

    def say(self, output: Output) -> None:
        self._out.append(output)

    def send(self, to: str, message: PeerMessage) -> None:
        self._out.append(Send(to, message))

    # --- the log ---------------------------------------------------------------------------------------------------

    def _carry_out(self, outputs: Outputs) -> None:
        if self.replica.role is not Role.LEADER:
            self._yield()
        for output in outputs:
            match output:
                case Write() | Send():
                    self._out.append(output)
                case Accepted(_, index, _):
                    assert self.leading is not None
                    self.leading.accepted(index)
                case Apply(entries):
                    for entry in entries:
                        self._apply(entry)
                    if self.leading is not None:
                        self.leading.let_go()
                    self._serve_once_known()
                    self._take_snapshot_if_due()
                case Restore(snapshot):
                    assert isinstance(snapshot.state, Writes)
                    self._committed.become(snapshot.state)
                    self._notice(snapshot.state)
                    if self._serving:
                        self._serve()  # what nodes were to be told meanwhile, they are told when they list again
                case RoleChanged(_, _, leader):
                    self._find_leader(leader)
                case ReadReady(Join() as join):
                    assert self.leading is not None
                    self.leading.accept(join)
                case ReadReady() | Refused():
                    pass

    def _find_leader(self, leader: str | None) -> None:
        self._serving = self._serving and leader is not None
        self._upstream = None
        if leader is not None and leader != self.name:
            self._join()

    def _apply(self, entry: Entry) -> None:
        match entry.command:
            case Decision(writes, orders, registered):
                self._committed.redo(writes)
                self._notice(writes)
                if registered is not None:
                    self._places.register(*registered)
                self._out += self._places.order(orders)
            case None if self.replica.role is Role.LEADER and entry.term == self.replica.term:
                # With the entry by which it begins its term, all that was before is there.
                self._lead(entry.index)

    def _notice(self, writes: Writes) -> None:
        self._places.change()
        for _, _, new in writes.objects:
            if isinstance(new, Lease):
                self._lease.see(new, self._now_s)
        if self.leading is not None:
            self.leading.act_if_held(self._now_s)

    def _take_snapshot_if_due(self) -> None:
        replica = self.replica
        if replica.applied_index - replica.log.snapshot.index >= SNAPSHOT_ENTRIES:
            self._carry_out(replica.compact(replica.applied_index, self._committed.everything(), self._now_s))

    # --- what goes out ---------------------------------------------------------------------------------------------

    def _finish(self) -> list[Output]:
        self._out += self._places.tell(self._committed, self._now_s)
        out, self._out = self._out, []
        return out
