"""A master: one of those that agree upon the desired and the observed state by a log, without I/O and without a clock.

What every master does: it has the store that is committed, and tells the places that are connected to it what follows
from it (`delivery`, and what nodes are to start and stop). What the leader of the log does besides: it takes in what
users and nodes say, and runs the controllers (`controllers`). What nodes say to another one is passed on to it.

So whatever anybody is told follows from what a majority has on its disks. A leader that was deposed, and does not know
yet, decides what is never committed: nobody carries it out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from testbed.consensus import messages as consensus
from testbed.consensus.log import Entry
from testbed.consensus.outputs import Accepted, Apply, ReadReady, Refused, Restore, Role, RoleChanged, Send, Write
from testbed.consensus.replica import Outputs, Replica
from testbed.consensus.settings import Settings
from testbed.consensus.storage import Stored
from testbed.control import api_server
from testbed.control.controllers import Controllers
from testbed.control.delivery.discovery import Discovery
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
from testbed.control.masters.streams import Downstreams, Upstream
from testbed.control.messages import Apply as ApplyObject
from testbed.control.messages import (
    Command,
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
    RecordEvent,
    SessionEvent,
    StartPod,
    StopPod,
)
from testbed.control.overview import Streams, behind, overview
from testbed.control.store import Store, Writes
from testbed.control.waiting import readiness
from testbed.objects.cluster import Declared
from testbed.objects.core import Lease, Node, Pod
from testbed.objects.places import CONTROL_PLANE
from testbed.objects.timings import Timings
from testbed.objects.workloads import MeshMode

BUSY_S = 0.05
"""A deadline that is met later than that was met by a busy master."""
HEARTBEATS = 10
"""Of a leader, in an election time-out: etcd's are 100 ms and 1 s."""
SNAPSHOT_ENTRIES = 2000
_FOUND: Final[Mapping[str, Callable[..., object]]] = {"readiness": readiness, "overview": overview, "behind": behind}
"""What can be asked of the store and of who is told by it, of all masters."""
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
        self._plane_now_s = now_s
        """What the controllers were last told is the time."""
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
        self.controllers: Controllers | None = None
        """While it leads: what they have decided may be ahead of what is committed."""
        self._acting = False
        self._downstreams = Downstreams()
        """While it leads."""
        self._newest: dict[str, int] = {}
        """While it leads: the newest session of each node that has been heard here."""
        self._lease = LeaseKeeper(f"{name}_{random.getrandbits(32):08x}", setup.timings, random)
        self._keeps_lease = not self._alone and setup.timings.leader_elect_lease_duration_s >= timeout_s
        """One that ends sooner would be over before anybody else can lead: then leadership is that of the log."""
        self._held: deque[tuple[int, int | None, Callable[[], RecordEvent | Answered]]] = deque()
        """What follows from the entry of that index, and is said once that is committed; with the number of the
        question, if it is an answer."""
        self._asked: list[tuple[int, str, tuple[Any, ...]]] = []
        """Of the only one, before it leads."""
        self._last_index = 0
        self._led_term = 0
        """The last one in which it has led."""
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
                self._take_passed_on(message)
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
        plane = self.controllers
        if plane is not None and (due_s := plane.next_deadline()) is not None and now_s >= due_s:
            self._plane_now_s = max(self._plane_now_s, now_s)
            self._decide(plane.handle([], self._plane_now_s))
        return self._finish()

    def next_deadline(self) -> float | None:
        """None while there is nothing to decide or to tell before something is said."""
        deadlines = [self._places.next_deadline()]
        if self.controllers is not None:
            deadlines.append(self.controllers.next_deadline())
        return min((each for each in deadlines if each is not None), default=None)

    def tick(self, now_s: float) -> list[Output]:
        self._now_s = now_s
        self._carry_out(self.replica.tick(now_s))
        if self._upstream is not None:
            self._ask_to_join(self._upstream)
        self._mind_lease()
        return self._finish()

    def next_tick(self) -> float:
        """Of the log."""
        deadlines = [self.replica.next_deadline()]
        if self._upstream is not None:
            deadlines.append(self._upstream.next_deadline())
        if self.controllers is not None and self._keeps_lease:
            deadlines.append(self._lease.next_deadline())
        return min(deadlines)

    def ask(self, number: int, method: str, arguments: tuple[Any, ...], now_s: float) -> list[Output]:
        """One of the methods below, by its name, or what can be found: then the first argument are the `streams` of the
        other masters. Answered by NotLeading unless this one leads, but for `streams`."""
        self._now_s = now_s
        if method == "streams":
            self._out.append(Answered(number, self.streams()))
        elif self.controllers is not None:
            self._answer(self.controllers, number, method, arguments)
        elif self._alone:
            self._asked.append((number, method, arguments))
        else:
            self._out.append(Answered(number, error=NotLeading(f"{self.name} does not lead")))
        return self._finish()

    # --- what can be asked -----------------------------------------------------------------------------------------

    def streams(self) -> tuple[int, Streams]:
        """How far its log is applied, and those who are told by this one."""
        return self.replica.applied_index, self._places.streams(self._committed)

    def apply(self, plane: Controllers, objects: Sequence[Declared]) -> None:
        """Create or change objects, as `kubectl apply` does. Raises Refused; then nothing has changed."""
        self._decide(plane.handle([ApplyObject(each) for each in objects], self._advanced_s(plane)))

    def delete(self, plane: Controllers, kind: type[Declared] | type[Pod], name: str, namespace: str) -> None:
        """As `kubectl delete` does. Raises Refused where there is no such object."""
        self._decide(plane.handle([Delete(kind, name, namespace)], self._advanced_s(plane)))

    def _all_streams(self, others: Sequence[tuple[int, Streams]]) -> Streams:
        applied_index, own = self.streams()
        streams = Streams.of_all([own, *(each for _, each in others)])
        # Who has not applied all does not know yet what is to be told.
        return replace(streams, due=streams.due or any(index < applied_index for index, _ in others))

    def _answer(self, plane: Controllers, number: int, method: str, arguments: tuple[Any, ...]) -> None:
        if method in _FOUND:
            others, *what = arguments
            self._hold(lambda: Answered(number, _FOUND[method](plane.store, self._all_streams(others), *what)), number)
            return
        try:
            getattr(self, method)(plane, *arguments)
        except api_server.Refused as refused:
            answered = Answered(number, error=refused)
        else:
            answered = Answered(number)
        self._hold(lambda: answered, number)

    def _advanced_s(self, plane: Controllers) -> float:
        """The time for what a user asks: now, unless there is mail of before to be read first."""
        deadline_s = plane.next_deadline()
        if deadline_s is None or self._now_s <= deadline_s + BUSY_S:
            self._plane_now_s = max(self._plane_now_s, self._now_s)
        return self._plane_now_s

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
        if self.controllers is not None:
            self._take(self.controllers, place, session, event, arrived_s)
        elif leader and upstream and (passed := upstream.pass_on(place, session, event)) is not None:
            self._send(leader, passed)

    # --- following -------------------------------------------------------------------------------------------------

    def _join(self) -> None:
        """The leader that was found. Until it has answered nobody new is served: this one may lack what others know."""
        self._serving = False
        self._upstream = Upstream(self.name, self._random.getrandbits(64), self._timings.election_timeout_s)
        self._ask_to_join(self._upstream)

    def _ask_to_join(self, upstream: Upstream) -> None:
        if self.replica.leader is not None and (join := upstream.join(self._lease.identity, self._now_s)) is not None:
            self._send(self.replica.leader, join)

    def _serve_once_known(self) -> None:
        upstream = self._upstream
        if not self._serving and upstream is not None and upstream.knows_all(self.replica.applied_index):
            self._serve()

    def _serve(self) -> None:
        self._serving = True
        self._out.append(Serves(self.replica.term, dict(self._places.sessions)))

    # --- leading ---------------------------------------------------------------------------------------------------

    def _lead(self) -> None:
        store = Store()
        store.redo(self._committed.everything())
        plane = self.controllers = Controllers(self._timings, store, acting=False)
        self._plane_now_s = self._now_s
        self._led_term = self.replica.term
        self._serve()
        if self._keeps_lease:
            self._lease.lead(self._now_s)
            self._mind_lease()
        else:
            self._act(plane)
        asked, self._asked = self._asked, []
        for number, method, arguments in asked:
            self._answer(plane, number, method, arguments)

    def _act(self, plane: Controllers) -> None:
        self._acting = True
        self._record_leading("LeaderElected")
        leading = RecordEvent("Master", self.name, "Leading", {"term": self._led_term})
        self._hold(lambda: leading)
        self._plane_now_s = max(self._plane_now_s, self._now_s)
        self._decide(plane.resume(self._plane_now_s))

    def _yield(self) -> None:
        """Another leads, or may. What is not committed may never be."""
        self._stop_acting()
        self.controllers = None
        self._downstreams = Downstreams()
        self._newest.clear()
        held, self._held = self._held, deque()
        error = NotLeading(f"{self.name} leads no more; what was asked may be done all the same")
        self._out += [Answered(number, error=error) for _, number, _ in held if number is not None]

    def _stop_acting(self) -> None:
        if self.controllers is not None and self._acting:
            self.controllers.stop()
            self._acting = False
            self._record_leading("LeaderLost")

    def _record_leading(self, reason: str) -> None:
        """Whose controllers run, or run no more; of the only one nobody asks."""
        if not self._alone:
            details = {"term": self._led_term, "partitions": "all"}
            self._out.append(RecordEvent("Leader", CONTROL_PLANE, reason, details))

    def _mind_lease(self) -> None:
        plane = self.controllers
        if plane is None or not self._keeps_lease:
            return
        if self._acting and self._lease.is_lost(self._now_s):
            self._stop_acting()
        if (lease := self._lease.to_write(self._now_s)) is not None:
            self._write(plane, lease)

    def _write(self, plane: Controllers, lease: Lease) -> None:
        plane.store.put(lease)
        self._decide([])

    def _accept(self, join: Join) -> None:
        """A majority has confirmed that this one leads, and with what: a read, which waits for the first commit."""
        assert self.controllers is not None
        self._downstreams.accept(join)
        self._send(join.sender, Joined(join.stream, self.replica.applied_index))
        if (released := self._lease.to_release(join.identity)) is not None:
            self._write(self.controllers, released)

    def _take_passed_on(self, passed: PassOn) -> None:
        plane = self.controllers
        if plane is None:
            return
        match self._downstreams.take(passed):
            case Missed() as missed:
                self._send(passed.sender, missed)
            case PassOn():
                self._take(plane, passed.place, passed.session, passed.event, self._now_s)

    def _take(self, plane: Controllers, place: str, session: int, event: NodeEvent, arrived_s: float) -> None:
        if session < self._newest.get(place, 0):
            return  # the node is connected elsewhere by now, and has said there what is
        self._newest[place] = session
        self._plane_now_s = max(self._plane_now_s, min(arrived_s, self._now_s))
        registers = isinstance(event, NodeRegistered) and plane.store.find(Node, place) is not None
        self._decide(plane.handle([event], self._plane_now_s), (place, session) if registers else None)

    def _decide(self, commands: Sequence[Command], registered: tuple[str, int] | None = None) -> None:
        """What was written goes to the log, with the orders that follow; the rest is said behind that."""
        assert self.controllers is not None
        orders = tuple(each for each in commands if isinstance(each, StartPod | StopPod))
        writes = self.controllers.store.take_writes()
        if writes or orders or registered:
            self._carry_out(self.replica.propose(None, Decision(writes, orders, registered), self._now_s))
        for each in commands:
            if isinstance(each, RecordEvent):
                self._hold(lambda event=each: event)  # type: ignore[misc]

    def _hold(self, what: Callable[[], RecordEvent | Answered], number: int | None = None) -> None:
        self._held.append((self._last_index, number, what))
        self._let_go()

    def _let_go(self) -> None:
        while self._held and self._held[0][0] <= self.replica.applied_index:
            self._out.append(self._held.popleft()[2]())

    # --- the log ---------------------------------------------------------------------------------------------------

    def _carry_out(self, outputs: Outputs) -> None:
        if self.controllers is not None and self.replica.role is not Role.LEADER:
            self._yield()
        for output in outputs:
            match output:
                case Write():
                    self._out.append(output)
                case Send(to, message):
                    self._send(to, message)
                case Accepted(_, index, _):
                    self._last_index = index
                case Apply(entries):
                    for entry in entries:
                        self._apply(entry)
                    self._let_go()
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
                    self._accept(join)
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
                self._last_index = entry.index
                self._lead()

    def _notice(self, writes: Writes) -> None:
        self._places.change()
        for _, _, new in writes.objects:
            if isinstance(new, Lease):
                self._lease.see(new, self._now_s)
        if self.controllers is not None and self._keeps_lease and self._lease.is_held and not self._acting:
            self._act(self.controllers)

    def _take_snapshot_if_due(self) -> None:
        replica = self.replica
        if replica.applied_index - replica.log.snapshot.index >= SNAPSHOT_ENTRIES:
            self._carry_out(replica.compact(replica.applied_index, self._committed.everything(), self._now_s))

    # --- what goes out ---------------------------------------------------------------------------------------------

    def _finish(self) -> list[Output]:
        self._out += self._places.tell(self._committed, self._now_s)
        out, self._out = self._out, []
        return out

    def _send(self, to: str, message: PeerMessage | consensus.Message) -> None:
        self._out.append(Send(to, message))
