"""What a master does besides while it leads the log: it takes in what users and nodes say, and runs the controllers.

What it has decided may be ahead of what is committed. So whatever follows from that is said behind it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from testbed.control import api_server
from testbed.control.controllers import Controllers
from testbed.control.masters.lease import LeaseKeeper
from testbed.control.masters.messages import (
    Answered,
    Decision,
    Join,
    Joined,
    Missed,
    NotLeading,
    Output,
    PassOn,
    PeerMessage,
)
from testbed.control.masters.streams import Downstreams
from testbed.control.messages import (
    Apply,
    Command,
    Delete,
    NodeEvent,
    NodeRegistered,
    RecordEvent,
    StartPod,
    StopPod,
)
from testbed.control.overview import Streams, behind, overview
from testbed.control.store import Store
from testbed.control.waiting import readiness
from testbed.objects.cluster import Declared
from testbed.objects.core import Lease, Node, Pod
from testbed.objects.places import CONTROL_PLANE
from testbed.objects.timings import Timings

BUSY_S = 0.05
"""A deadline that is met later than that was met by a busy master."""
_FOUND: Final[Mapping[str, Callable[..., object]]] = {"readiness": readiness, "overview": overview, "behind": behind}
"""What can be asked of the store and of who is told by it, of all masters."""


class Log(Protocol):
    """The log of the one that leads, and its mail."""

    @property
    def applied_index(self) -> int: ...

    def propose(self, decision: Decision) -> None:
        """`Leading.accepted` is told its index before this returns."""

    def say(self, output: Output) -> None: ...

    def send(self, to: str, message: PeerMessage) -> None: ...

    def streams(self) -> tuple[int, Streams]:
        """How far the log is applied here, and those who are told by this one."""


class Leading:
    """From the entry by which its term begins; it ends with `end`. `now_s` is as the master's."""

    def __init__(
        self,
        name: str,
        term: int,
        index: int,
        timings: Timings,
        store: Store,
        lease: LeaseKeeper | None,
        log: Log,
        now_s: float,
        *,
        alone: bool,
    ) -> None:
        """`index` is that entry's; `store` has what is committed, and is its own from now on. `lease` is to be held
        while controllers run, if there is one."""
        self._name = name
        self._term = term
        self._last_index = index
        self._lease = lease
        self._log = log
        self._alone = alone
        self._controllers = Controllers(timings, store, acting=False)
        self._acting = False
        self._plane_now_s = now_s
        """What the controllers were last told is the time."""
        self._downstreams = Downstreams()
        self._newest: dict[str, int] = {}
        """The newest session of each node that has been heard here."""
        self._held: deque[tuple[int, int | None, Callable[[], RecordEvent | Answered]]] = deque()
        """What follows from the entry of that index, and is said once that is committed; with the number of the
        question, if it is an answer."""

    # --- its time --------------------------------------------------------------------------------------------------

    def begin(self, now_s: float) -> None:
        if self._lease is None:
            self._act(now_s)
        else:
            self._lease.lead(now_s)
            self.mind_lease(now_s)

    def advance(self, now_s: float) -> None:
        """At `next_deadline`."""
        due_s = self._controllers.next_deadline()
        if due_s is not None and now_s >= due_s:
            self._plane_now_s = max(self._plane_now_s, now_s)
            self._decide(self._controllers.handle([], self._plane_now_s))

    def next_deadline(self) -> float | None:
        """None while there is nothing to decide before something is said."""
        return self._controllers.next_deadline()

    def end(self) -> None:
        """Another leads, or may. What is not committed may never be."""
        self._stop_acting()
        error = NotLeading(f"{self._name} leads no more; what was asked may be done all the same")
        for _, number, _ in self._held:
            if number is not None:
                self._log.say(Answered(number, error=error))

    # --- whose controllers run ---------------------------------------------------------------------------------------

    def mind_lease(self, now_s: float) -> None:
        """At `lease_deadline`."""
        if self._lease is None:
            return
        if self._acting and self._lease.is_lost(now_s):
            self._stop_acting()
        if (lease := self._lease.to_write(now_s)) is not None:
            self._write(lease)

    def lease_deadline(self) -> float:
        return math.inf if self._lease is None else self._lease.next_deadline()

    def act_if_held(self, now_s: float) -> None:
        """When a Lease may have been committed."""
        if self._lease is not None and self._lease.is_held and not self._acting:
            self._act(now_s)

    def _act(self, now_s: float) -> None:
        self._acting = True
        self._record_leading("LeaderElected")
        leading = RecordEvent("Master", self._name, "Leading", {"term": self._term})
        self._hold(lambda: leading)
        self._plane_now_s = max(self._plane_now_s, now_s)
        self._decide(self._controllers.resume(self._plane_now_s))

    def _stop_acting(self) -> None:
        if self._acting:
            self._controllers.stop()
            self._acting = False
            self._record_leading("LeaderLost")

    def _record_leading(self, reason: str) -> None:
        """Whose controllers run, or run no more; of the only one nobody asks."""
        if not self._alone:
            details = {"term": self._term, "partitions": "all"}
            self._log.say(RecordEvent("Leader", CONTROL_PLANE, reason, details))

    def _write(self, lease: Lease) -> None:
        self._controllers.store.put(lease)
        self._decide([])

    # --- what users ask ----------------------------------------------------------------------------------------------

    def answer(self, number: int, method: str, arguments: tuple[Any, ...], now_s: float) -> None:
        """`apply` or `delete`, or what can be found: then the first argument are the `streams` of the other masters."""
        if method in _FOUND:
            others, *what = arguments
            find, store = _FOUND[method], self._controllers.store
            self._hold(lambda: Answered(number, find(store, self._all_streams(others), *what)), number)
            return
        changes: Mapping[str, Callable[..., None]] = {"apply": self.apply, "delete": self.delete}
        try:
            changes[method](now_s, *arguments)
        except api_server.Refused as refused:
            answered = Answered(number, error=refused)
        else:
            answered = Answered(number)
        self._hold(lambda: answered, number)

    def apply(self, now_s: float, objects: Sequence[Declared]) -> None:
        """Create or change objects, as `kubectl apply` does. Raises Refused; then nothing has changed."""
        self._decide(self._controllers.handle([Apply(each) for each in objects], self._asked_s(now_s)))

    def delete(self, now_s: float, kind: type[Declared] | type[Pod], name: str, namespace: str) -> None:
        """As `kubectl delete` does. Raises Refused where there is no such object."""
        self._decide(self._controllers.handle([Delete(kind, name, namespace)], self._asked_s(now_s)))

    def _all_streams(self, others: Sequence[tuple[int, Streams]]) -> Streams:
        applied_index, own = self._log.streams()
        streams = Streams.of_all([own, *(each for _, each in others)])
        # Who has not applied all does not know yet what is to be told.
        return replace(streams, due=streams.due or any(index < applied_index for index, _ in others))

    def _asked_s(self, now_s: float) -> float:
        """The time for what a user asks: now, unless there is mail of before to be read first."""
        deadline_s = self._controllers.next_deadline()
        if deadline_s is None or now_s <= deadline_s + BUSY_S:
            self._plane_now_s = max(self._plane_now_s, now_s)
        return self._plane_now_s

    # --- what nodes say ----------------------------------------------------------------------------------------------

    def accept(self, join: Join) -> None:
        """A majority has confirmed that this one leads, and with what: a read, which waits for the first commit."""
        self._downstreams.accept(join)
        self._log.send(join.sender, Joined(join.stream, self._log.applied_index))
        if self._lease is not None and (released := self._lease.to_release(join.identity)) is not None:
            self._write(released)

    def take_passed_on(self, passed: PassOn, now_s: float) -> None:
        """To another master."""
        match self._downstreams.take(passed):
            case Missed() as missed:
                self._log.send(passed.sender, missed)
            case PassOn():
                self.take(passed.place, passed.session, passed.event, now_s)

    def take(self, place: str, session: int, event: NodeEvent, arrived_s: float) -> None:
        """`arrived_s` is not later than now."""
        if session < self._newest.get(place, 0):
            return  # the node is connected elsewhere by now, and has said there what is
        self._newest[place] = session
        self._plane_now_s = max(self._plane_now_s, arrived_s)
        plane = self._controllers
        registers = isinstance(event, NodeRegistered) and plane.store.find(Node, place) is not None
        self._decide(plane.handle([event], self._plane_now_s), (place, session) if registers else None)

    # --- what follows ------------------------------------------------------------------------------------------------

    def _decide(self, commands: Sequence[Command], registered: tuple[str, int] | None = None) -> None:
        """What was written goes to the log, with the orders that follow; the rest is said behind that."""
        orders = tuple(each for each in commands if isinstance(each, StartPod | StopPod))
        writes = self._controllers.store.take_writes()
        if writes or orders or registered:
            self._log.propose(Decision(writes, orders, registered))
        for each in commands:
            if isinstance(each, RecordEvent):
                self._hold(lambda event=each: event)  # type: ignore[misc]

    def accepted(self, index: int) -> None:
        """By the log, what was proposed."""
        self._last_index = index

    def _hold(self, what: Callable[[], RecordEvent | Answered], number: int | None = None) -> None:
        self._held.append((self._last_index, number, what))
        self.let_go()

    def let_go(self) -> None:
        """What follows from entries that are applied by now."""
        while self._held and self._held[0][0] <= self._log.applied_index:
            self._log.say(self._held.popleft()[2]())
