"""Replicas that go by orders: who leads is what each was told last."""

from __future__ import annotations

from testbed.consensus.outputs import ReadReady, Send, Write
from testbed.consensus.storage import Stored
from testbed.isr.messages import FetchReply
from testbed.isr.outputs import Acknowledged, Acks, NotAcknowledged, Of, Problem
from testbed.isr.units import Order, Unit

BOTH = ("a", "b")


class Pair:
    """Two units without time: what is sent arrives at once, and what is written is durable when `sync` is called."""

    def __init__(self) -> None:
        first = {0: Order("a", 1)}
        self.units = {name: Unit(name, BOTH, {0: Stored.nothing()}, first) for name in BOTH}
        self.writes: dict[str, list[Write]] = {name: [] for name in BOTH}
        self.said: dict[str, list[object]] = {name: [] for name in BOTH}
        for name in BOTH:
            self.do(name, self.units[name].tick(0.0))
        self.retry()

    def do(self, name: str, outputs: tuple[Of, ...]) -> None:
        for of in outputs:
            match of.output:
                case Send(to, message):
                    if isinstance(message, FetchReply):
                        self.said[name].append(message)
                    self.do(to, self.units[to].receive(message, 0.0))
                case Write():
                    self.writes[name].append(of.output)
                case Acknowledged() | NotAcknowledged() | ReadReady():
                    self.said[name].append(of.output)

    def sync(self, name: str) -> None:
        while self.writes[name]:
            write = self.writes[name].pop(0)
            self.do(name, self.units[name].persisted(0, write.number, 0.0))

    def sync_all(self) -> None:
        while any(self.writes.values()):
            for name in BOTH:
                self.sync(name)

    def retry(self) -> None:
        """Whoever asked one who did not lead yet asks again."""
        for name in BOTH:
            unit = self.units[name]
            if not unit.replicas[0].leads:
                self.do(name, unit.tick(max(0.0, unit.next_deadline())))
        self.sync_all()

    def produce(self, name: str, what: str) -> None:
        self.do(name, self.units[name].produce(what, 0, what, Acks.LEADER, 0.0))

    def order(self, name: str, leader: str, epoch: int) -> None:
        self.do(name, self.units[name].order(0, Order(leader, epoch), 0.0))

    def log(self, name: str) -> list[object]:
        return [entry.command for entry in self.units[name].replicas[0].log.entries]


def test_the_leader_acknowledges_alone_and_the_other_gets_only_what_it_has_on_disk() -> None:
    pair = Pair()
    pair.produce("a", "x")
    assert (pair.log("a"), pair.log("b")) == (["x"], [])
    pair.sync("a")
    assert Acknowledged("x", 1, 1) in pair.said["a"]
    assert pair.log("b") == ["x"]
    assert pair.units["a"].replicas[0].lags == {"b": 1}
    pair.sync_all()
    assert pair.units["a"].replicas[0].lags == {"b": 0}


def test_who_does_not_lead_by_its_own_order_takes_and_reads_nothing() -> None:
    pair = Pair()
    pair.produce("b", "x")
    pair.do("b", pair.units["b"].read("r", 0, 0.0))
    assert [each for each in pair.said["b"] if not isinstance(each, FetchReply)] == [
        NotAcknowledged("x", Problem.NOT_LEADER),
        NotAcknowledged("r", Problem.NOT_LEADER),
    ]


def test_two_lead_at_a_time_by_their_own_orders_and_who_hears_last_loses_what_it_has_taken() -> None:
    pair = Pair()
    pair.produce("a", "before")
    pair.sync_all()
    pair.order("b", "b", 2)
    pair.produce("a", "lost")
    pair.produce("b", "kept")
    pair.sync_all()
    assert Acknowledged("lost", 2, 1) in pair.said["a"]
    assert Acknowledged("kept", 2, 2) in pair.said["b"]
    pair.order("a", "b", 2)
    pair.sync_all()
    assert pair.log("a") == pair.log("b") == ["before", "kept"]


def test_an_order_that_is_overtaken_by_a_newer_one_changes_nothing() -> None:
    pair = Pair()
    for name in BOTH:
        pair.order(name, "b", 3)
        pair.order(name, "a", 2)
    assert [pair.units[name].leader_of(0) for name in BOTH] == ["b", "b"]
    assert pair.units["b"].orders == {0: Order("b", 3)}
    pair.retry()
    pair.produce("b", "x")
    pair.sync_all()
    assert pair.log("a") == ["x"]
