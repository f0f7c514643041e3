"""A node as its kubelet leads it: power, leases, the order of a boot, and what is there of each pod that it holds.

Owns which processes exist, whose end or answer is heard, and who ended them; what each pod does is `pod_lifecycle`'s.
Does none of it: `emulation` carries out the actions and reports what came of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from testbed.control.kubelet.messages import (
    Answered,
    Connected,
    End,
    Ended,
    Failed,
    Forget,
    Killed,
    NodeAction,
    NodeEvent,
    OfPod,
    PluggedIn,
    PowerBack,
    PowerCut,
    Probe,
    RecordExit,
    Register,
    ShutDown,
    Start,
    Tell,
)
from testbed.control.kubelet.pod_lifecycle import (
    KillProcesses,
    KubeletCommand,
    KubeletEvent,
    PodLifecycle,
    PowerLost,
    PowerRestored,
    ProcessesStarted,
    ProcessExited,
    Report,
    RunProbe,
    StartProcesses,
    StartRequested,
    StopRequested,
)
from testbed.control.kubelet.process import Process
from testbed.control.messages import LeaseRenewed, PodListed, PodStopped, StartPod, StopPod
from testbed.objects.core import Pod
from testbed.objects.timings import Timings
from testbed.objects.workloads import CRASHED, BuiltinWorkload, CommandWorkload, StoreWorkload

BOOT_SPACING_S = 0.7
"""Between the pods of a node that boots. Starting all at once would take every core from the pods that serve, which
share the machine with it only here."""
NOT_STARTED = 127
"""The exit code of what could not be started, as shells have it."""

# --- what is there of a pod ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Run:
    """A process of a pod as it is on the machine.

    `left_over`: it is from before the power went, so that the pod's life knows nothing of it. `ended_by` is who is
    about to end it, or has; None: nobody else may.
    """

    state: Literal["none", "starting", "up"] = "none"
    life: int = 0
    left_over: bool = False
    ending: Literal["stop", "kill"] | None = None
    ended_by: Literal["fault", "kubelet"] | None = None

    @property
    def is_up(self) -> bool:
        return self.state == "up" and not self.left_over

    def end(self) -> None:
        self.state, self.left_over, self.ending = "none", False, None


@dataclass(slots=True)
class _HeldPod:
    """A pod on this node. What would move it waits in the `backlog` while something is left over, and its start while
    another pod has its disk."""

    pod: Pod
    lifecycle: PodLifecycle
    runs: dict[Process, _Run] = field(default_factory=dict)
    backlog: list[StartRequested | StopRequested | PowerRestored] = field(default_factory=list)
    failed: bool = False
    deadline_s: float | None = None
    """When something is due in its life: that changes by its steps alone, and is looked at far more often."""

    @property
    def left_over(self) -> bool:
        return any(run.left_over for run in self.runs.values())

    @property
    def disk(self) -> str | None:
        """What only one pod at a time may have, of all that are ever the same replica of a store."""
        workload = self.pod.template.workload
        return workload.replica if isinstance(workload, StoreWorkload) else None

    def program(self, process: Process) -> str:
        """What runs as this process: the testbed's own Envoy or workload, or the user's command."""
        if process == "proxy":
            return "envoy"
        return "command" if isinstance(self.pod.template.workload, CommandWorkload) else "workload"

    def crashed_as_declared(self, process: Process, code: int) -> bool:
        """Whether a request did it that is declared to."""
        workload = self.pod.template.workload
        declared = isinstance(workload, BuiltinWorkload) and workload.crash_path is not None
        return process == "app" and declared and code == CRASHED


class NodeLifecycle:
    """`handle` every event when it arrives, and None when `next_deadline()` has come; carry out what it returns.

    A dead machine is silent and deaf: without power it tells nothing, and what it is told is lost; the control plane
    says it again when the node registers. Then, as at first, its kubelet registers, renews its lease, and starts the
    pods that the node holds one after the other, each when nothing of it is left from before.
    """

    def __init__(self, name: str, timings: Timings, random: Random) -> None:
        self._name = name
        self._timings = timings
        self._random = random
        self._pods: dict[str, _HeldPod] = {}
        self._powered = False
        self._without_power: set[str] = set()
        self.closing = False
        """The run is over: what comes now is the end of everything."""
        self._lease_s: float | None = None
        self._booting: list[str] = []
        """Pods that are still to be started, the next one at `_boot_s`."""
        self._boot_s = 0.0

    @property
    def at_work(self) -> bool:
        """Whether the kubelet runs: it hears, tells and decides."""
        return self._powered and not self.closing

    def holds(self, pod: str) -> bool:
        return pod in self._pods

    def up(self) -> Iterator[tuple[Pod, frozenset[Process]]]:
        """The pods of which something runs, and what."""
        for held in self._pods.values():
            if up := frozenset(process for process, run in held.runs.items() if run.is_up):
                yield held.pod, up

    def running_pods(self) -> list[Pod]:
        """Those of which every process runs."""
        return [pod for pod, up in self.up() if len(up) == len(self._pods[pod.name].runs)]

    def _listed(self) -> tuple[PodListed, ...]:
        listed = (held.lifecycle.listed() for held in self._pods.values())
        return tuple(each for each in listed if each is not None)

    def handle(self, event: NodeEvent | None, now_s: float) -> list[NodeAction]:
        """What is to be done because of an event, or of `now_s` alone."""
        actions = [] if event is None else self._take_in(event, now_s)
        return actions + self._catch_up(now_s) + self._due(now_s)

    def next_deadline(self) -> float | None:
        """The next lease, pod to boot, restart or probe."""
        if not self.at_work:
            return None
        deadlines = [self._lease_s, self._boot_s if self._booting else None]
        deadlines += [held.deadline_s for held in self._pods.values()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _take_in(self, event: NodeEvent, now_s: float) -> list[NodeAction]:
        match event:
            case PluggedIn():
                return self._power_on(now_s)
            case Connected():
                return [Register(self._listed(), booted=False)] if self.at_work else []
            case PowerCut(fault):
                self._without_power.add(fault)
                return self._power_off(now_s)
            case PowerBack(fault):
                self._without_power.discard(fault)
                return [] if self._without_power or self._powered else self._power_on(now_s)
            case Killed(name):
                return self._kill(name)
            case ShutDown():
                self.closing = True
                return [self._end(held, process, "stop") for held in self._pods.values() for process in held.runs]
            case Answered():
                return self._answered(event, now_s)
            case Ended():
                return self._ended(event, now_s)
            case OfPod(name, of_pod):
                return self._step(self._pods[name], of_pod, now_s) if name in self._pods else []
            case StartPod(_, pod) if self.at_work:
                held = self._pods.get(pod.name)
                if held is None:
                    held = self._pods[pod.name] = _HeldPod(pod, PodLifecycle(pod, self._timings, self._random))
                return self._move(held, StartRequested(), now_s)
            case StopPod(_, name) if self.at_work:
                held = self._pods.get(name)
                return (
                    [Tell(PodStopped(self._name, name))] if held is None else self._move(held, StopRequested(), now_s)
                )
            case StartPod() | StopPod():
                return []

    # --- power ---------------------------------------------------------------------------------------------------

    def _power_on(self, now_s: float) -> list[NodeAction]:
        self._powered = True
        self._lease_s = self._boot_s = now_s
        self._booting = list(self._pods)
        return [Register()]

    def _power_off(self, now_s: float) -> list[NodeAction]:
        if not self._powered:
            return []
        self._powered = False
        actions: list[NodeAction] = []
        for held in self._pods.values():
            held.backlog.clear()
            for process, run in held.runs.items():
                if run.state != "none":
                    run.left_over, run.ended_by = True, "fault"
                    actions.append(self._end(held, process, "kill"))
            actions += self._step(held, PowerLost(), now_s)
        return actions

    def _kill(self, name: str) -> list[NodeAction]:
        held = self._pods.get(name)
        if held is None or not any(run.is_up for run in held.runs.values()):
            return []
        actions: list[NodeAction] = []
        for process, run in held.runs.items():
            if run.state != "none":
                run.ended_by = "fault"
                actions.append(self._end(held, process, "kill"))
        return actions

    # --- what is due -----------------------------------------------------------------------------------------------

    def _due(self, now_s: float) -> list[NodeAction]:
        if not self.at_work:
            return []
        actions: list[NodeAction] = []
        if self._lease_s is not None and now_s >= self._lease_s:
            self._lease_s = now_s + self._timings.lease_renew_s
            actions.append(Tell(LeaseRenewed(self._name)))
        while self._booting and now_s >= self._boot_s:
            held = self._pods.get(self._booting.pop(0))
            if held is not None:  # else it was stopped while others started
                self._boot_s = now_s + BOOT_SPACING_S
                actions += self._move(held, PowerRestored(), now_s)
        for held in list(self._pods.values()):
            if held.deadline_s is not None and now_s >= held.deadline_s:
                actions += self._step(held, None, now_s)
        return actions

    # --- what is there of pods -------------------------------------------------------------------------------------

    def _answered(self, event: Answered, now_s: float) -> list[NodeAction]:
        held = self._pods.get(event.start.pod.name)
        if held is None:
            return []
        actions: list[NodeAction] = []
        started: list[Process] = []
        failed: list[Process] = []
        for process, life in event.start.lives:
            run = held.runs[process]
            if run.life != life or run.state != "starting":
                continue  # it has ended already, and may have been started again
            if process in event.failures:
                failed.append(process)
                continue
            run.state = "up"
            started.append(process)
            if self.closing or run.ending is not None:
                actions.append(self._end(held, process, run.ending or "stop"))
        if started and event.address is not None:
            actions += self._step(held, ProcessesStarted(tuple(started), event.address), now_s)
        for process in failed:
            details = {"process": process, "last_lines": event.failures[process]}
            actions += self._gone(held, process, NOT_STARTED, details, now_s)
        return actions

    def _ended(self, event: Ended, now_s: float) -> list[NodeAction]:
        held = self._pods.get(event.pod)
        run = None if held is None else held.runs.get(event.process)
        if held is None or run is None or run.life != event.life or run.state == "none":
            return []
        details = {"process": event.process, "code": event.code, "last_lines": event.last_lines}
        return self._gone(held, event.process, event.code, details, now_s)

    def _gone(
        self, held: _HeldPod, process: Process, code: int, details: dict[str, Any], now_s: float
    ) -> list[NodeAction]:
        run = held.runs[process]
        left_over = run.left_over
        run.end()
        by = run.ended_by or ("request" if held.crashed_as_declared(process, code) else None)
        known = {"program": held.program(process), "by": by}
        actions: list[NodeAction] = [RecordExit(held.pod.name, details | known)] if self.at_work else []
        return actions if left_over else actions + self._step(held, ProcessExited(process, code), now_s)

    def _end(self, held: _HeldPod, process: Process, how: Literal["stop", "kill"]) -> End:
        held.runs[process].ending = how
        return End(held.pod.name, process, how)

    def _move(
        self, held: _HeldPod, event: StartRequested | StopRequested | PowerRestored, now_s: float
    ) -> list[NodeAction]:
        if held.left_over or (not isinstance(event, StopRequested) and self._has_to_wait(held)):
            held.backlog.append(event)
            return []
        return self._step(held, event, now_s)

    def _has_to_wait(self, held: _HeldPod) -> bool:
        """Whether a pod that was here before has its disk (Kubernetes' access mode ReadWriteOncePod)."""
        if held.disk is None:
            return False
        return held is not next(other for other in self._pods.values() if other.disk == held.disk)

    def _catch_up(self, now_s: float) -> list[NodeAction]:
        """What waited and need not any more."""
        actions: list[NodeAction] = []
        for held in list(self._pods.values()):
            if held.backlog and not held.left_over and not self._has_to_wait(held):
                backlog, held.backlog = held.backlog, []
                for event in backlog:
                    actions += self._step(held, event, now_s)
        return actions

    def _step(self, held: _HeldPod, event: KubeletEvent | None, now_s: float) -> list[NodeAction]:
        """One step of a pod's life. What goes wrong in it is that pod's alone."""
        if held.failed or self.closing:
            return []
        try:
            commands = held.lifecycle.handle(event, now_s)
            held.deadline_s = held.lifecycle.next_deadline()
            return [action for command in commands for action in self._translated(held, command, now_s)]
        except Exception as error:
            held.failed, held.deadline_s = True, None
            return [Failed(held.pod.name, error)]

    def _translated(self, held: _HeldPod, command: KubeletCommand, now_s: float) -> Iterator[NodeAction]:
        match command:
            case StartProcesses(processes):
                for process in processes:
                    run = held.runs.setdefault(process, _Run())
                    assert run.state == "none", f"{process} of pod {held.pod.name} is to be started twice"
                    run.state, run.life, run.ended_by = "starting", run.life + 1, None
                yield Start(held.pod, tuple((process, held.runs[process].life) for process in processes))
            case KillProcesses(processes):
                for process in processes:
                    held.runs[process].ended_by = held.runs[process].ended_by or "kubelet"
                    yield self._end(held, process, "stop")
            case RunProbe(kind, _):
                yield Probe(held.pod, kind)
            case Report(PodStopped() as stopped):
                if self._pods.pop(held.pod.name, None) is not None:
                    yield Forget(held.pod.name)
                yield Tell(stopped)
            case Report(event):
                yield Tell(event)
