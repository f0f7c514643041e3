"""Errors that control planes have had, to be planted into this one: a check that finds none of them proves nothing."""

from __future__ import annotations

from dataclasses import replace

from testbed.control.delivery.subscribers import Subscribers
from testbed.control.kubernetes import node_health
from testbed.control.kubernetes.node_health import NodeHealth
from testbed.control.masters.connection import Connection
from testbed.control.masters.leading import Leading
from testbed.control.masters.master import Master
from testbed.control.masters.messages import Decision, Missed, PassOn
from testbed.control.masters.streams import Downstreams
from testbed.control.messages import Command, ConfigAcked, NodeEvent, NodeRegistered, ProxyConnected, StartPod, StopPod
from testbed.control.store import Store
from testbed.objects.core import Node, Pod
from tests.consensus.planted import PLANTED as OF_THE_LOG
from tests.consensus.planted import Planted

resume = NodeHealth.resume
register = NodeHealth.register
take_passed_on = Downstreams.take
propose = Master.propose
join = Master._join
end = Leading.end
take = Leading.take
acked = Subscribers.acked
connect = Subscribers.connect
take_lead = Connection.take_lead


def ignore_gaps(self: Downstreams, passed: PassOn) -> PassOn | Missed | None:
    number, taken = self._taken.get(passed.sender, (None, 0))
    if number == passed.stream:
        self._taken[passed.sender] = passed.stream, max(taken, passed.number - 1)
    return take_passed_on(self, passed)


def join_never_again(self: Master) -> None:
    """What is missed is missed."""
    if self._upstream is None:
        join(self)


def keep_leases(self: NodeHealth, store: Store, now: float) -> None:
    if any(node.lease_renewed_s is not None for node in store.list(Node)):
        self._next_check_s = now + self._timings.node_monitor_s


def take_pods_for_gone(self: NodeHealth, store: Store, now: float) -> None:
    resume(self, store, now)
    for pod in store.list(Pod):
        if pod.node is not None and pod.phase == "Running":
            store.put(node_health._not_running(pod))


def take_pods_for_unready(self: NodeHealth, store: Store, now: float) -> None:
    resume(self, store, now)
    for pod in store.list(Pod):
        store.put(replace(pod, containers_ready=False))


def order_at_once(self: Master, decision: Decision) -> None:
    propose(self, decision)
    self._out += self._places.order(decision.orders)


def answer_at_once(self: Leading) -> None:
    while self._held:
        self._log.say(self._held.popleft()[2]())


def answer_when_deposed(self: Leading) -> None:
    answer_at_once(self)
    end(self)


def take_any_ack(self: Subscribers, event: ConfigAcked) -> None:
    told = self._told.get(event.proxy)
    version = None if told is None else told.pushed.get(event.type_url)
    acked(self, event if version is None else replace(event, version=str(version)))


def begin_versions_anew(self: Subscribers, store: Store, event: ProxyConnected) -> bool:
    return connect(self, store, replace(event, versions=()))


def start_nothing_again(self: NodeHealth, store: Store, event: NodeRegistered, now: float) -> list[Command]:
    return [each for each in register(self, store, event, now) if not isinstance(each, StartPod)]


def stop_nothing_again(self: NodeHealth, store: Store, event: NodeRegistered, now: float) -> list[Command]:
    return [each for each in register(self, store, event, now) if not isinstance(each, StopPod)]


def list_nothing_again(self: Connection, master: str, session: int | None, now_s: float) -> str | None:
    found = take_lead(self, master, session, now_s)
    return None if found == "list" else found


def take_any_session(self: Leading, place: str, session: int, event: NodeEvent, arrived_s: float) -> None:
    self._newest.pop(place, None)
    take(self, place, session, event, arrived_s)


PLANTED: dict[str, Planted] = {
    "what a follower has passed on may have gaps": Planted(Downstreams, "take", ignore_gaps),
    "a stream that was missed is not begun anew": Planted(Master, "_join", join_never_again),
    "leases are counted from the former leader's time": Planted(NodeHealth, "resume", keep_leases),
    "a new leader takes pods for gone that their nodes have not listed": Planted(
        NodeHealth, "resume", take_pods_for_gone
    ),
    "a new leader takes pods for not ready until their nodes say so": Planted(
        NodeHealth, "resume", take_pods_for_unready
    ),
    "nodes are told what is not committed": Planted(Master, "propose", order_at_once),
    "success is answered before it is committed": Planted(Leading, "let_go", answer_at_once),
    "a leader that is deposed answers with success": Planted(Leading, "end", answer_when_deposed),
    "an acknowledgement is of the newest version, whatever it says": Planted(Subscribers, "acked", take_any_ack),
    "versions begin anew with each connection": Planted(Subscribers, "connect", begin_versions_anew),
    "a start is not repeated to a node that lists what it has": Planted(NodeHealth, "register", start_nothing_again),
    "a stop is not repeated to a node that lists what it has": Planted(NodeHealth, "register", stop_nothing_again),
    "nodes do not list again for a new leader": Planted(Connection, "take_lead", list_nothing_again),
    "what was said before a node moved on counts after it": Planted(Leading, "take", take_any_session, begin=130),
    "messages leave before what they depend on is durable": replace(
        OF_THE_LOG["messages leave before what they depend on is durable"], begin=150
    ),
    "a follower carries out what the leader has not confirmed": OF_THE_LOG[
        "a follower commits entries that the leader has not confirmed"
    ],
}
