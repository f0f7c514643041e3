from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.control.kubelet.pod_lifecycle import (
    KillProcesses,
    KubeletCommand,
    KubeletEvent,
    PodLifecycle,
    PowerLost,
    PowerRestored,
    ProbeFinished,
    ProcessesStarted,
    ProcessExited,
    ProxyReady,
    Report,
    RunProbe,
    StartProcesses,
    StartRequested,
    StopRequested,
)
from testbed.control.kubelet.process import TRANSITIONS, Process, State
from testbed.control.messages import PodReadinessChanged, PodStarted, PodStopped
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.core import Pod
from testbed.objects.timings import Timings
from testbed.objects.workloads import BuiltinWorkload, MeshMode, PodTemplate, Probe

ADDRESS = PodAddress(*(SocketAddress("127.20.1.3", port) for port in (8080, 15006, 15001)))
TEMPLATE = PodTemplate("web", BuiltinWorkload())
PROBED = replace(TEMPLATE, readiness=Probe(), liveness=Probe(initial_delay_s=5.0))
GATEWAY = PodTemplate("gateway", None, role="gateway")
BOTH_STARTED = ProcessesStarted(("app", "proxy"), ADDRESS)
CRASH = ProcessExited("app", 1)


def lifecycle(template: PodTemplate = TEMPLATE, random: Random | None = None) -> PodLifecycle:
    return PodLifecycle(Pod("web-1", "web", template, node="a"), Timings(), random)


def readiness(ready: bool, reason: str = "") -> Report:
    return Report(PodReadinessChanged("a", "web-1", ready, reason))


def started(template: PodTemplate = TEMPLATE) -> PodLifecycle:
    """A pod whose processes run since 0 s and whose proxy is ready."""
    pod = lifecycle(template)
    for event in (StartRequested(), BOTH_STARTED, ProxyReady(True)):
        pod.handle(event, 0.0)
    return pod


def restart(pod: PodLifecycle, now: float) -> list[KubeletCommand]:
    return pod.handle(ProcessesStarted(("app",), ADDRESS), now)


def test_a_pod_without_probes_is_ready_when_it_runs_and_its_proxy_is_ready() -> None:
    pod = lifecycle()
    assert pod.handle(None, 0.0) == []
    assert pod.handle(StartRequested(), 1.0) == [StartProcesses(("app", "proxy"))]
    assert pod.handle(StartRequested(), 1.0) == [], "the control plane says it again after a reboot"
    assert pod.handle(BOTH_STARTED, 2.0) == [
        Report(PodStarted("a", "web-1", ADDRESS, 0)),
        readiness(False, "ContainersNotReady: proxy is not ready"),
    ]
    assert pod.handle(ProxyReady(True), 3.0) == [readiness(True)]


def test_a_gateway_is_its_proxy_alone() -> None:
    pod = lifecycle(GATEWAY)
    assert pod.handle(StartRequested(), 0.0) == [StartProcesses(("proxy",))]
    pod.handle(ProcessesStarted(("proxy",), ADDRESS), 0.0)
    assert pod.handle(ProxyReady(True), 0.0) == [readiness(True)]


@pytest.mark.parametrize("mode", ["node", "none"])
def test_a_pod_without_a_sidecar_is_its_app_alone_and_ready_by_its_probe(mode: MeshMode) -> None:
    pod = lifecycle(replace(TEMPLATE, mesh_mode=mode, readiness=Probe()))
    assert pod.handle(StartRequested(), 0.0) == [StartProcesses(("app",))]
    commands = pod.handle(ProcessesStarted(("app",), ADDRESS), 0.0)
    assert Report(PodStarted("a", "web-1", ADDRESS, 0)) in commands
    assert pod.handle(ProbeFinished("readiness", True), 0.1) == [readiness(True)]
    assert pod.handle(ProcessExited("app", 137), 1.0)[-1] == readiness(False, "Error: app exited with code 137")


def test_readiness_is_gained_at_the_success_threshold_and_lost_at_the_failure_threshold() -> None:
    pod = lifecycle(replace(TEMPLATE, readiness=Probe(success_threshold=2)))
    pod.handle(StartRequested(), 0.0)
    assert RunProbe("readiness", 1.0) in pod.handle(BOTH_STARTED, 0.0)
    pod.handle(ProxyReady(True), 0.0)
    assert pod.handle(ProbeFinished("readiness", True), 0.1) == []
    assert pod.next_deadline() == 10.0
    assert pod.handle(None, 10.0) == [RunProbe("readiness", 1.0)]
    assert pod.handle(ProbeFinished("readiness", True), 10.1) == [readiness(True)]
    for at_s in (20.0, 30.0):
        pod.handle(None, at_s)
        assert pod.handle(ProbeFinished("readiness", False, "HTTP 503"), at_s) == []
    pod.handle(None, 40.0)
    lost = readiness(False, "Unhealthy: Readiness probe failed: HTTP 503")
    assert pod.handle(ProbeFinished("readiness", False, "HTTP 503"), 40.0) == [lost]


def test_a_slow_probe_is_followed_at_once_by_the_one_that_waited_for_it() -> None:
    pod = started(replace(TEMPLATE, readiness=Probe(period_s=1.0, timeout_s=5.0)))
    assert pod.next_deadline() is None, "one probe of a kind at a time"
    assert RunProbe("readiness", 5.0) in pod.handle(ProbeFinished("readiness", True), 4.2)
    pod.handle(ProbeFinished("readiness", True), 4.3)
    assert pod.next_deadline() == 5.0


def test_with_a_random_the_probes_keep_to_a_phase_of_their_own() -> None:
    pod = lifecycle(replace(TEMPLATE, readiness=Probe()), Random(7))
    pod.handle(StartRequested(), 0.0)
    pod.handle(BOTH_STARTED, 0.0)
    pod.handle(ProbeFinished("readiness", True), 0.1)
    phase_s = pod.next_deadline()
    assert phase_s == 10 * Random(7).random()
    pod.handle(None, phase_s)
    pod.handle(ProbeFinished("readiness", True), phase_s)
    assert pod.next_deadline() == phase_s + 10.0


def test_liveness_failures_at_the_threshold_kill_the_app_and_only_the_app() -> None:
    pod = started(PROBED)
    pod.handle(ProbeFinished("readiness", True), 0.1)
    for at_s in (5.0, 15.0, 25.0):
        assert RunProbe("liveness", 1.0) in pod.handle(None, at_s)
        pod.handle(ProbeFinished("readiness", True), at_s)
        last = pod.handle(ProbeFinished("liveness", False, "timeout"), at_s + 1)
    assert last == [KillProcesses(("app",)), readiness(False, "Unhealthy: Liveness probe failed: timeout")]
    assert pod.handle(ProcessExited("app", 137), 26.5)[0] == StartProcesses(("app",))


def test_a_crashed_app_restarts_at_once_then_after_a_back_off_that_doubles_up_to_five_minutes() -> None:
    pod = started()
    assert pod.handle(CRASH, 1.0) == [StartProcesses(("app",)), readiness(False, "Error: app exited with code 1")]
    assert restart(pod, 1.5) == [Report(PodStarted("a", "web-1", ADDRESS, 1)), readiness(True)], "the proxy ran on"
    now = 2.0
    for backoff_s in (10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0):
        why = f"CrashLoopBackOff: back-off {backoff_s:g}s restarting failed app, last exit code 1"
        assert pod.handle(CRASH, now) == [readiness(False, why)]
        assert pod.next_deadline() == now + backoff_s
        now += backoff_s
        assert pod.handle(None, now) == [StartProcesses(("app",))]
        restart(pod, now)
    assert pod.handle(CRASH, now + 600.1)[0] == StartProcesses(("app",)), "forgotten after ten minutes without a crash"


def test_a_process_that_does_not_come_up_is_a_crash() -> None:
    pod = lifecycle()
    pod.handle(StartRequested(), 0.0)
    assert pod.handle(ProcessExited("app", 127), 0.1) == [StartProcesses(("app",))]
    assert pod.handle(ProcessExited("app", 127), 0.2) == []
    assert pod.next_deadline() == 10.2
    assert pod.handle(ProcessesStarted(("proxy",), ADDRESS), 0.3)[-1] == readiness(
        False, "CrashLoopBackOff: back-off 10s restarting failed app, last exit code 127"
    )


def test_a_stop_ends_when_every_process_is_gone_and_is_confirmed_again_when_asked_again() -> None:
    pod = started()
    gone = Report(PodStopped("a", "web-1"))
    assert pod.handle(StopRequested(), 5.0) == [KillProcesses(("app", "proxy"))]
    assert pod.handle(StopRequested(), 5.1) == []
    assert pod.handle(ProcessExited("app", 137), 5.2) == []
    assert pod.handle(ProcessExited("proxy", 0), 5.3) == [gone]
    assert pod.stopped
    assert pod.handle(StopRequested(), 9.0) == [gone]
    assert pod.handle(StartRequested(), 9.0) == []


def test_a_stop_during_back_off_does_not_restart_the_app() -> None:
    pod = started()
    pod.handle(CRASH, 1.0)
    restart(pod, 1.0)
    pod.handle(CRASH, 2.0)
    assert pod.handle(StopRequested(), 3.0) == [KillProcesses(("proxy",))]
    assert pod.next_deadline() is None
    assert pod.handle(ProcessExited("proxy", 0), 3.1) == [Report(PodStopped("a", "web-1"))]


def test_power_loss_is_silent_and_power_brings_the_pod_back_as_a_restart() -> None:
    pod = started(PROBED)
    assert pod.handle(PowerLost(), 3.0) == []
    assert pod.next_deadline() is None
    assert pod.handle(ProcessExited("app", 137), 3.1) == []
    assert pod.handle(PowerRestored(), 9.0) == [StartProcesses(("app", "proxy"))]
    assert pod.handle(BOTH_STARTED, 9.5)[0] == Report(PodStarted("a", "web-1", ADDRESS, 1))


def test_power_loss_during_a_stop_ends_it() -> None:
    pod = started()
    pod.handle(StopRequested(), 3.0)
    assert pod.handle(PowerLost(), 3.1) == []
    assert pod.handle(PowerRestored(), 9.0) == [Report(PodStopped("a", "web-1"))]


def test_every_state_of_a_process_has_a_way_to_its_end() -> None:
    reach_the_end = {State.STOPPED}
    for _ in State:
        reach_the_end |= {source for (source, _), target in TRANSITIONS.items() if target in reach_the_end}
    assert reach_the_end == set(State)
    assert not [source for source, _ in TRANSITIONS if source is State.STOPPED]


EVENTS: st.SearchStrategy[KubeletEvent | None] = st.one_of(
    st.none(),
    st.builds(StartRequested),
    st.builds(ProcessesStarted, st.sampled_from([("app", "proxy"), ("app",), ("proxy",)]), st.just(ADDRESS)),
    st.builds(ProcessExited, st.sampled_from(["app", "proxy"]), st.sampled_from([0, 1, 137])),
    st.builds(ProbeFinished, st.sampled_from(["readiness", "liveness"]), st.booleans(), st.just("message")),
    st.builds(ProxyReady, st.booleans()),
    st.builds(StopRequested),
    st.builds(PowerLost),
    st.builds(PowerRestored),
)
STEPS = st.lists(st.tuples(EVENTS, st.floats(0.0, 50.0)), max_size=40)


@pytest.mark.parametrize("template", [TEMPLATE, PROBED, GATEWAY, replace(PROBED, mesh_mode="none")])
@settings(max_examples=150)
@given(steps=STEPS)
def test_any_order_of_events_keeps_the_invariants(
    template: PodTemplate, steps: list[tuple[KubeletEvent | None, float]]
) -> None:
    pod = lifecycle(template, Random(1))
    names = {"app"} if template.workload is not None else set()
    names |= {"proxy"} if template.has_proxy else set()
    running: set[str] = set()
    asked: set[str] = set()
    ready = False
    now = 0.0
    for event, wait_s in steps:
        now += wait_s
        match event:
            case ProcessesStarted(processes, _):
                running |= asked & set(processes)
                asked -= set(processes)
            case ProcessExited(process, _):
                running.discard(process)
                asked.discard(process)
            case PowerLost():
                running.clear()
                asked.clear()
                ready = False
        for command in pod.handle(event, now):
            match command:
                case StartProcesses(processes):
                    assert not running & set(processes), "never started twice"
                    asked |= set(processes)
                case KillProcesses(processes):
                    assert set(processes) <= running | asked
                case Report(PodReadinessChanged(ready=now_ready)):
                    assert now_ready != ready or not now_ready
                    ready = now_ready
                    assert not ready or running == names, "ready only while everything runs"
                case Report(PodStarted()):
                    assert running == names
                    ready = False
                case Report(PodStopped()):
                    assert not running
        deadline_s = pod.next_deadline()
        assert deadline_s is None or deadline_s > now


@pytest.mark.parametrize("order", [("app", "proxy"), ("proxy", "app")])
@pytest.mark.parametrize("between", ["both end first", "one is back before the other ends"])
def test_a_kill_of_all_processes_is_one_restart(order: tuple[Process, Process], between: str) -> None:
    pod = started()
    first, second = order
    reports: list[KubeletCommand] = []
    reports += pod.handle(ProcessExited(first, 137), 1.0)
    if between == "one is back before the other ends":
        reports += pod.handle(ProcessesStarted((first,), ADDRESS), 1.1)
    reports += pod.handle(ProcessExited(second, 137), 1.2)
    if between == "both end first":
        reports += pod.handle(ProcessesStarted((first,), ADDRESS), 1.3)
    reports += pod.handle(ProcessesStarted((second,), ADDRESS), 1.3)
    counts = [
        command.event.restarts
        for command in reports
        if isinstance(command, Report) and isinstance(command.event, PodStarted)
    ]
    assert counts[-1] == 1


def test_a_power_cycle_is_one_restart_of_what_had_been_started_and_none_of_what_had_not() -> None:
    for pod, restarts in ((started(), 1), (lifecycle(), 0)):
        pod.handle(PowerLost(), 1.0)
        pod.handle(PowerRestored(), 2.0)
        pod.handle(StartRequested(), 2.0)
        assert Report(PodStarted("a", "web-1", ADDRESS, restarts)) in pod.handle(BOTH_STARTED, 3.0)
