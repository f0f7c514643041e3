"""A node's life as a function of events and time: power, leases, boot order, and what is there of its pods."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.control.kubelet.messages import (
    Answered,
    Connected,
    End,
    Ended,
    Failed,
    Forget,
    Killed,
    NodeAction,
    OfPod,
    PluggedIn,
    PowerBack,
    PowerCut,
    RecordExit,
    Register,
    ShutDown,
    Start,
    Tell,
)
from testbed.control.kubelet.node import BOOT_SPACING_S, NodeLifecycle
from testbed.control.kubelet.pod_lifecycle import KubeletCommand, PodLifecycle, ProbeFinished
from testbed.control.messages import LeaseRenewed, PodListed, PodStarted, PodStopped, StartPod, StopPod
from testbed.objects.workloads import CRASHED, BuiltinWorkload, PodTemplate
from tests.control.node_world import ADDRESS, BARE, MESHED, REPLICA, REPLICAS, TIMINGS, Machine, pod

LEASE = Tell(LeaseRenewed("a"))


def start(name: str, template: PodTemplate = BARE) -> StartPod:
    return StartPod("a", pod(name, template))


def plugged_in() -> NodeLifecycle:
    node = NodeLifecycle("a", TIMINGS, Random(1))
    assert node.handle(PluggedIn(), 0.0) == [Register(), LEASE]
    return node


def starts(actions: list[NodeAction]) -> list[Start]:
    return [action for action in actions if isinstance(action, Start)]


def running(*names: str, template: PodTemplate = BARE) -> NodeLifecycle:
    """A node whose pods run since 0 s."""
    node = plugged_in()
    for name in names:
        (asked,) = starts(node.handle(start(name, template), 0.0))
        node.handle(Answered(asked, ADDRESS, {}), 0.0)
    assert [each.name for each in node.running_pods()] == list(names)
    return node


def told(actions: list[NodeAction], kind: type) -> list[object]:
    return [action.event for action in actions if isinstance(action, Tell) and isinstance(action.event, kind)]


def test_a_lease_is_renewed_in_its_period_and_not_without_power() -> None:
    node = plugged_in()
    renew_s = TIMINGS.lease_renew_s
    assert node.next_deadline() == renew_s
    assert node.handle(None, renew_s) == [LEASE]
    node.handle(PowerCut("outage"), renew_s + 0.1)
    assert node.next_deadline() is None
    assert node.handle(None, 9 * renew_s) == []
    assert node.handle(PowerBack("outage"), 10 * renew_s) == [Register(), LEASE]


def test_without_power_a_node_is_deaf_and_silent() -> None:
    node = running("web-1")
    assert node.handle(PowerCut("outage"), 1.0) == [End("web-1", "app", "kill")]
    assert node.running_pods() == []
    assert node.handle(start("web-2"), 2.0) == []
    assert node.handle(StopPod("a", "web-1"), 2.0) == []
    assert node.handle(Ended("web-1", "app", 1, -9), 2.0) == [], "nobody is there to write it down"
    assert not node.holds("web-2")


def test_a_control_plane_that_may_not_have_heard_is_told_which_pods_were_started() -> None:
    node = running("web-1", "web-2")
    starting, stopping = start("web-3"), StopPod("a", "web-2")
    node.handle(starting, 1.0)
    node.handle(stopping, 1.0)
    (register,) = node.handle(Connected(), 2.0)
    assert register == Register((PodListed("web-1", ADDRESS, 0, True),), booted=False)
    node.handle(Killed("web-1"), 3.0)
    node.handle(Ended("web-1", "app", 1, -9), 3.0)
    (register,) = [each for each in node.handle(Connected(), 3.0) if isinstance(each, Register)]
    assert [(pod.name, pod.ready, bool(pod.reason)) for pod in register.pods] == [("web-1", False, True)]
    node.handle(PowerCut("outage"), 4.0)
    assert node.handle(Connected(), 4.0) == [], "nobody hears it"
    assert Register() in node.handle(PowerBack("outage"), 5.0), "nothing runs after a boot"


def test_pods_of_a_booting_node_start_one_after_the_other() -> None:
    node = running("web-1", "web-2", "web-3")
    node.handle(PowerCut("outage"), 1.0)
    for name in ("web-1", "web-2", "web-3"):
        node.handle(Ended(name, "app", 1, -9), 1.0)
    booted = node.handle(PowerBack("outage"), 5.0)
    assert booted == [Register(), LEASE, Start(pod("web-1"), (("app", 2),))]
    assert node.handle(StopPod("a", "web-2"), 5.1) == [Forget("web-2"), Tell(PodStopped("a", "web-2"))]
    assert starts(node.handle(None, 5.0 + 0.9 * BOOT_SPACING_S)) == []
    assert starts(node.handle(None, 5.0 + BOOT_SPACING_S)) == [Start(pod("web-3"), (("app", 2),))]


def test_there_is_power_while_no_fault_has_cut_it() -> None:
    node = running("web-1")
    node.handle(PowerCut("first"), 1.0)
    assert node.handle(PowerCut("second"), 1.0) == []
    node.handle(Ended("web-1", "app", 1, -9), 1.0)
    assert node.handle(PowerBack("first"), 2.0) == []
    assert node.handle(PowerBack("second"), 3.0)[0] == Register()
    assert node.handle(PowerBack("second"), 3.0) == [], "it has power already"


def test_a_pod_starts_again_when_nothing_is_left_of_it_from_before_the_power_went() -> None:
    node = running("web-1")
    node.handle(PowerCut("outage"), 1.0)
    assert starts(node.handle(PowerBack("outage"), 1.001)) == []
    exit_, *rest = node.handle(Ended("web-1", "app", 1, -9), 1.002)
    assert exit_ == RecordExit("web-1", {"process": "app", "code": -9, "last_lines": "", "program": "workload"} | FAULT)
    assert rest == [Start(pod("web-1"), (("app", 2),))]


FAULT = {"by": "fault"}


def test_what_was_to_come_when_the_power_went_again_does_not_come_without_it() -> None:
    node = running("web-1")
    node.handle(PowerCut("outage"), 1.0)
    node.handle(PowerBack("outage"), 1.001)
    node.handle(PowerCut("outage"), 1.002)
    assert node.handle(Ended("web-1", "app", 1, -9), 1.003) == []
    assert starts(node.handle(PowerBack("outage"), 2.0)) == [Start(pod("web-1"), (("app", 2),))]


def test_a_replica_of_a_store_starts_when_the_pod_before_it_has_left_its_disk() -> None:
    node = running("ledger-r1-1", template=REPLICA)
    assert node.handle(start("ledger-r1-2", REPLICA), 1.0) == []
    assert node.handle(StopPod("a", "ledger-r1-1"), 2.0) == [End("ledger-r1-1", "app", "stop")]
    actions = node.handle(Ended("ledger-r1-1", "app", 1, 0), 3.0)
    assert actions[-2:] == [
        Tell(PodStopped("a", "ledger-r1-1")),
        Start(pod("ledger-r1-2", REPLICA), (("app", 1),)),
    ]


def test_a_replica_that_waits_for_its_disk_is_stopped_at_once_and_waits_again_after_a_boot() -> None:
    node = running("ledger-r1-1", template=REPLICA)
    node.handle(start("ledger-r1-2", REPLICA), 1.0)
    assert told(node.handle(StopPod("a", "ledger-r1-2"), 1.0), PodStopped) == [PodStopped("a", "ledger-r1-2")]
    node.handle(start("ledger-r1-3", REPLICA), 1.0)
    node.handle(PowerCut("outage"), 2.0)
    node.handle(Ended("ledger-r1-1", "app", 1, -9), 2.0)
    booted = node.handle(PowerBack("outage"), 3.0) + node.handle(start("ledger-r1-3", REPLICA), 3.0)
    booted += node.handle(None, 3.0 + 2 * BOOT_SPACING_S)
    assert [each.pod.name for each in starts(booted)] == ["ledger-r1-1"]
    assert starts(node.handle(StopPod("a", "ledger-r1-1"), 6.0)) == [], "its start is not answered yet"
    node.handle(Answered(starts(booted)[0], ADDRESS, {}), 6.0)
    actions = node.handle(Ended("ledger-r1-1", "app", 2, 0), 7.0)
    assert [each.pod.name for each in starts(actions)] == ["ledger-r1-3"]


def test_a_process_that_was_starting_when_the_power_went_is_ended_when_it_is_up() -> None:
    node = plugged_in()
    (asked,) = starts(node.handle(start("web-1"), 0.0))
    assert node.handle(PowerCut("outage"), 0.1) == [End("web-1", "app", "kill")]
    assert starts(node.handle(PowerBack("outage"), 0.2)) == []
    assert node.handle(Answered(asked, ADDRESS, {}), 0.3) == [End("web-1", "app", "kill")]
    assert node.running_pods() == []
    assert starts(node.handle(Ended("web-1", "app", 1, -9), 0.4)) == [Start(pod("web-1"), (("app", 2),))]


def test_a_process_that_was_to_stop_while_it_started_is_stopped_when_it_is_up() -> None:
    node = plugged_in()
    (asked,) = starts(node.handle(start("web-1"), 0.0))
    assert node.handle(StopPod("a", "web-1"), 0.1) == [End("web-1", "app", "stop")]
    assert node.handle(Answered(asked, ADDRESS, {}), 0.2) == [End("web-1", "app", "stop")]
    assert Forget("web-1") in node.handle(Ended("web-1", "app", 1, -15), 0.3)
    assert not node.holds("web-1")


def test_an_app_that_ends_before_its_proxy_is_up_leaves_the_proxy_to_start() -> None:
    node = plugged_in()
    (both,) = starts(node.handle(start("web-1", MESHED), 0.0))
    (again,) = starts(node.handle(Ended("web-1", "app", 1, 1), 0.1))
    assert again.lives == (("app", 2),)
    assert told(node.handle(Answered(both, ADDRESS, {}), 0.2), PodStarted) == []
    assert told(node.handle(Answered(again, ADDRESS, {}), 0.3), PodStarted) == [PodStarted("a", "web-1", ADDRESS, 1)]


def test_a_process_whose_end_is_heard_of_before_its_start_does_not_run() -> None:
    node = plugged_in()
    (first,) = starts(node.handle(start("web-1"), 0.0))
    (second,) = starts(node.handle(Ended("web-1", "app", 1, 1), 0.1))
    assert starts(node.handle(Ended("web-1", "app", 2, 1), 0.2)) == [], "it backs off"
    for asked in (first, second):
        assert node.handle(Answered(asked, ADDRESS, {}), 0.3) == []
    assert node.running_pods() == []


def test_what_cannot_be_started_is_written_down_and_tried_again() -> None:
    node = plugged_in()
    (asked,) = starts(node.handle(start("web-1"), 0.0))
    exit_, again, *_ = node.handle(Answered(asked, ADDRESS, {"app": "no such file"}), 0.1)
    details = {"process": "app", "last_lines": "no such file", "program": "workload", "by": None}
    assert exit_ == RecordExit("web-1", details)
    assert again == Start(pod("web-1"), (("app", 2),))


def test_the_end_of_a_process_is_written_down_with_who_ended_it() -> None:
    def by(node: NodeLifecycle, name: str) -> object:
        (exit_,) = (each for each in node.handle(Ended(name, "app", 1, -9), 9.0) if isinstance(each, RecordExit))
        return exit_.details["by"]

    node = running("killed-1", "stopped-1", "both-1", "nobody-1")
    assert node.handle(Killed("killed-1"), 1.0) == [End("killed-1", "app", "kill")]
    assert node.handle(StopPod("a", "stopped-1"), 1.0) == [End("stopped-1", "app", "stop")]
    node.handle(StopPod("a", "both-1"), 1.0)
    node.handle(Killed("both-1"), 1.0)
    names = ("killed-1", "stopped-1", "both-1", "nobody-1")
    assert [by(node, name) for name in names] == ["fault", "kubelet", "fault", None]
    assert node.handle(Killed("gone-1"), 9.0) == []


@pytest.mark.parametrize(
    ("crash_path", "code", "by"), [("/poison", CRASHED, "request"), ("/poison", 1, None), (None, CRASHED, None)]
)
def test_a_request_ends_a_process_only_where_that_is_declared(crash_path: str | None, code: int, by: object) -> None:
    node = running("web-1", template=replace(BARE, workload=BuiltinWorkload(crash_path=crash_path)))
    (exit_,) = (each for each in node.handle(Ended("web-1", "app", 1, code), 9.0) if isinstance(each, RecordExit))
    assert exit_.details["by"] == by


def test_a_late_end_is_not_taken_for_that_of_the_process_after_it() -> None:
    node = running("web-1")
    node.handle(Killed("web-1"), 1.0)
    (again,) = starts(node.handle(Ended("web-1", "app", 1, -9), 1.0))
    node.handle(Answered(again, ADDRESS, {}), 1.1)
    assert node.handle(Ended("web-1", "app", 1, -9), 1.2) == []
    assert [each.name for each in node.running_pods()] == ["web-1"]


def test_a_node_that_shuts_down_ends_all_and_decides_nothing_any_more() -> None:
    node = running("web-1", template=MESHED)
    (asked,) = starts(node.handle(start("web-2"), 0.0))
    ended = [End("web-1", "app", "stop"), End("web-1", "proxy", "stop"), End("web-2", "app", "stop")]
    assert node.handle(ShutDown(), 1.0) == ended
    assert node.next_deadline() is None
    assert node.handle(Answered(asked, ADDRESS, {}), 1.1) == [End("web-2", "app", "stop")]
    for event in (Ended("web-1", "app", 1, -15), start("web-3"), StopPod("a", "web-1"), None):
        assert node.handle(event, 2.0) == []


def test_a_defect_in_one_pods_life_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = PodLifecycle.handle
    defect = KeyError("a defect")

    def defective(life: PodLifecycle, event: object, now_s: float) -> list[KubeletCommand]:
        if life._pod.name == "web-1" and now_s >= 5.0:
            raise defect
        return handle(life, event, now_s)  # type: ignore[arg-type]

    monkeypatch.setattr(PodLifecycle, "handle", defective)
    node = running("web-1", "web-2")
    node.handle(PowerCut("outage"), 1.0)
    for name in ("web-1", "web-2"):
        node.handle(Ended(name, "app", 1, -9), 1.0)
    assert node.handle(PowerBack("outage"), 5.0) == [Register(), LEASE, Failed("web-1", defect)]
    assert starts(node.handle(None, 5.0 + BOOT_SPACING_S)) == [Start(pod("web-2"), (("app", 2),))]
    assert node.handle(start("web-1"), 6.0) == [], "it is told once, and left alone"


# --- any order of events ---------------------------------------------------------------------------------------

KINDS = ("start", "stop", "kill", "cut", "restore", "spawn", "answer", "fail", "crash", "hear", "probed", "ready")
WHAT = st.lists(st.tuples(st.sampled_from((*KINDS, "wait")), st.integers(0, 20)), min_size=20, max_size=60)


@settings(max_examples=400)
@given(WHAT)
def test_any_order_of_events_starts_nothing_twice_and_all_that_should_run_in_the_end(
    steps: list[tuple[str, int]],
) -> None:
    machine = Machine()
    machine.say(PluggedIn())
    for what, number in steps:
        machine.one_step(what, number)
        if machine.power:
            assert machine.node.next_deadline() is None
            assert not machine.node.running_pods()
    machine.settle()
    if machine.power:
        assert not machine.alive, "nothing runs without power"
    for fault in sorted(machine.power):
        machine.power.discard(fault)
        machine.say(PowerBack(fault))
    for _ in range(30):
        machine.settle()
        for probe in machine.probes:
            machine.say(OfPod(probe.pod.name, ProbeFinished(probe.kind, True)))
        machine.probes.clear()
        # Long enough for what waits behind a back-off, and for the next in order of a boot.
        machine.now_s += TIMINGS.restart_backoff_max_s
        machine.say(None)
    machine.settle()
    names = {each.name for each in machine.wanted.values()}
    if names >= REPLICAS:
        names = names - REPLICAS | {name for name, _ in machine.alive if name in REPLICAS}
        assert len(names & REPLICAS) == 1, "one has the disk"
    assert {name for name, _ in machine.alive} == names
    assert {each.name for each in machine.node.running_pods()} == names
    assert not [name for name in machine.unwanted if machine.node.holds(name)]


@settings(max_examples=100)
@given(WHAT)
def test_any_order_of_events_ends_with_nothing_running_when_the_node_shuts_down(steps: list[tuple[str, int]]) -> None:
    machine = Machine()
    machine.say(PluggedIn())
    for what, number in steps:
        machine.one_step(what, number)
    for action in machine.node.handle(ShutDown(), machine.now_s):
        assert isinstance(action, End)
        machine.die((action.pod, action.process))
    machine.settle()
    assert not machine.alive
