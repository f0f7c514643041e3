"""One pod's life on its node, as the kubelet leads it: processes, probes, readiness, restarts with back-off.

Owns when processes are started, killed and probed, and what the control plane is told. Does none of it: `emulation`
carries out the commands and reports what came of them. Deciding which pods exist is the control plane's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Literal

from testbed.control.kubelet.process import Process, ProcessLifecycle, State, Trigger
from testbed.control.messages import PodListed, PodReadinessChanged, PodStarted, PodStopped
from testbed.objects.addresses import PodAddress
from testbed.objects.core import Pod
from testbed.objects.timings import Timings
from testbed.objects.workloads import Probe

ProbeKind = Literal["readiness", "liveness"]

# --- events: what happens on the node --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartRequested:
    """StartPod arrived. Repeated ones change nothing."""


@dataclass(frozen=True, slots=True)
class ProcessesStarted:
    """These processes of a StartProcesses run now and have this address."""

    processes: tuple[Process, ...]
    address: PodAddress


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """A process ended, by itself or killed, or could not be started at all."""

    process: Process
    code: int


@dataclass(frozen=True, slots=True)
class ProbeFinished:
    """The answer to RunProbe; there is one for each, at the latest when its time-out ends."""

    kind: ProbeKind
    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProxyReady:
    """The proxy has all its configuration and accepts connections, or no longer does."""

    ready: bool


@dataclass(frozen=True, slots=True)
class StopRequested:
    """StopPod arrived. Answered by PodStopped each time."""


@dataclass(frozen=True, slots=True)
class PowerLost:
    """The node crashed. Dead machines are silent: nothing is reported."""


@dataclass(frozen=True, slots=True)
class PowerRestored:
    """The node boots and its kubelet starts the pods that it holds."""


KubeletEvent = (
    StartRequested
    | ProcessesStarted
    | ProcessExited
    | ProbeFinished
    | ProxyReady
    | StopRequested
    | PowerLost
    | PowerRestored
)

# --- commands: what is to be done on the node ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartProcesses:
    """Answered by ProcessesStarted, or by ProcessExited for a process that does not come up."""

    processes: tuple[Process, ...]


@dataclass(frozen=True, slots=True)
class KillProcesses:
    """Answered by ProcessExited for each, also when its start is still under way."""

    processes: tuple[Process, ...]


@dataclass(frozen=True, slots=True)
class RunProbe:
    """Answered by ProbeFinished; one of a kind runs at a time."""

    kind: ProbeKind
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the control plane."""

    event: PodStarted | PodReadinessChanged | PodStopped


KubeletCommand = StartProcesses | KillProcesses | RunProbe | Report

# --- the life of a pod -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Prober:
    """One probe of the running container: when it is due and the run of equal results (prober/worker.go)."""

    kind: ProbeKind
    probe: Probe
    healthy: bool = False
    message: str = ""
    next_s: float | None = None
    running: bool = False
    results: list[bool] = field(default_factory=list)

    def reset(self) -> None:
        """The container is down. Readiness begins as failed and liveness as passed, as in prober_manager.go."""
        self.healthy = self.kind == "liveness"
        self.message = "" if self.healthy else "ContainersNotReady: not probed yet"
        self.next_s, self.running, self.results = None, False, []

    def finish(self, ok: bool, message: str) -> None:
        if self.results and self.results[-1] != ok:
            self.results.clear()
        self.results.append(ok)
        threshold = self.probe.success_threshold if ok else self.probe.failure_threshold
        if len(self.results) >= threshold:
            self.healthy = ok
            self.message = "" if ok else f"Unhealthy: {self.kind.capitalize()} probe failed: {message}"


class PodLifecycle:
    """`handle` every event when it arrives, and None when `next_deadline()` has come; carry out what it returns.

    A pod is ready when all its processes run, its proxy (if any) is ready and so is its readiness probe. Processes
    restart one by one: an app that crashes leaves its proxy running. Probes are sent to the app, or to the proxy of
    a pod without one. The first probe is sent `initial_delay_s` after the start; with a `random` the later ones keep
    to a phase of their own within the period, as the kubelet's ticker is not in step with the containers.
    """

    def __init__(self, pod: Pod, timings: Timings, random: Random | None = None) -> None:
        assert pod.node is not None, f"pod {pod.name} is not bound to a node"
        self._pod, self._node = pod, pod.node
        self._timings = timings
        self._random = random
        app: tuple[Process, ...] = () if pod.template.workload is None else ("app",)
        names: tuple[Process, ...] = (*app, "proxy") if pod.template.has_proxy else app
        self._processes = {name: ProcessLifecycle(name) for name in names}
        self._probed = names[0]
        kinds: tuple[tuple[ProbeKind, Probe | None], ...] = (
            ("readiness", pod.template.readiness),
            ("liveness", pod.template.liveness),
        )
        self._probers = [_Prober(kind, probe) for kind, probe in kinds if probe is not None]
        self._reset_probers()
        self._address: PodAddress | None = None
        self._proxy_ready = False
        self._requested = False
        self._reported = (False, "")

    @property
    def stopped(self) -> bool:
        """True when nothing of the pod is left and nothing will come."""
        return all(process.state is State.STOPPED for process in self._processes.values())

    def listed(self) -> PodListed | None:
        """What the control plane should know about it; None as long as it was not started."""
        if not self._is_told_of or self._address is None:
            return None
        ready, reason = self._reported
        return PodListed(self._pod.name, self._address, self._restarts, ready, reason)

    def handle(self, event: KubeletEvent | None, now: float) -> list[KubeletCommand]:
        """What is to be done because of an event, or of `now` alone."""
        commands = self._take_in(event, now)
        return commands + self._start_due(now) + self._probe_due(now) + self._report_readiness()

    def next_deadline(self) -> float | None:
        """The next restart or probe."""
        deadlines = [process.start_s for process in self._processes.values()]
        deadlines += [prober.next_s for prober in self._probers if not prober.running]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _take_in(self, event: KubeletEvent | None, now: float) -> list[KubeletCommand]:
        match event:
            case None:
                return []
            case StartRequested():
                if not self._requested:
                    self._requested = True
                    self._schedule_waiting(now)
                return []
            case ProcessesStarted(processes, address):
                return self._started(processes, address, now)
            case ProcessExited(name, code):
                return self._exited(name, code, now)
            case ProbeFinished(kind, ok, message):
                return self._probed_as(kind, ok, message, now)
            case ProxyReady(ready):
                self._proxy_ready = ready and self._runs("proxy")
                return []
            case StopRequested():
                return self._stop()
            case PowerLost():
                for process in self._processes.values():
                    process.move(Trigger.POWER_LOST)
                    process.start_s = process.backoff_s = None
                self._down()
                self._reported = (False, "")
                return []
            case PowerRestored():
                return self._power_restored(now)

    def _schedule_waiting(self, now: float) -> None:
        for process in self._processes.values():
            if process.state is State.WAITING:
                process.start_s = now

    def _started(self, names: tuple[Process, ...], address: PodAddress, now: float) -> list[KubeletCommand]:
        moved = [name for name in names if name in self._processes and self._processes[name].move(Trigger.STARTED)]
        if not moved:
            return []
        self._address = address
        if self._probed in moved:
            for prober in self._probers:
                prober.next_s = now + prober.probe.initial_delay_s
        if not self._all_run():
            return []
        self._reported = (False, "")
        return [Report(PodStarted(self._node, self._pod.name, address, self._restarts))]

    def _exited(self, name: Process, code: int, now: float) -> list[KubeletCommand]:
        process = self._processes.get(name)
        if process is None or not process.move(Trigger.EXITED):
            return []
        self._down(name)
        if process.state is State.BACK_OFF:
            process.back_off(code, now, self._timings)
        return self._stopped_reports()

    def _probed_as(self, kind: ProbeKind, ok: bool, message: str, now: float) -> list[KubeletCommand]:
        prober = next((prober for prober in self._probers if prober.kind == kind and prober.running), None)
        if prober is None:
            return []
        prober.running = False
        prober.finish(ok, message)
        if kind == "readiness" or prober.healthy:
            return []
        unhealthy = self._processes[self._probed]
        unhealthy.exit_reason = prober.message
        self._down(unhealthy.name)
        return [KillProcesses((unhealthy.name,))] if unhealthy.move(Trigger.UNHEALTHY) else []

    def _stop(self) -> list[KubeletCommand]:
        self._requested = True
        killed: list[Process] = []
        for process in self._processes.values():
            process.start_s = None
            if process.move(Trigger.STOP) and process.state is State.STOPPING:
                killed.append(process.name)
        self._down()
        commands: list[KubeletCommand] = [KillProcesses(tuple(killed))] if killed else []
        return commands + self._stopped_reports()

    def _power_restored(self, now: float) -> list[KubeletCommand]:
        for process in self._processes.values():
            process.move(Trigger.POWER_RESTORED)
        if self._requested:
            self._schedule_waiting(now)
        return self._stopped_reports()

    def _stopped_reports(self) -> list[KubeletCommand]:
        return [Report(PodStopped(self._node, self._pod.name))] if self.stopped else []

    def _start_due(self, now: float) -> list[KubeletCommand]:
        due: list[Process] = []
        for process in self._processes.values():
            if process.start_s is not None and now >= process.start_s:
                if process.state is State.BACK_OFF:
                    process.restarted_s = now
                process.starts += 1
                moved = process.move(Trigger.START)
                assert moved, f"{process.name} of pod {self._pod.name} has a start time while {process.state.value}"
                process.start_s = None
                due.append(process.name)
        return [StartProcesses(tuple(due))] if due else []

    def _probe_due(self, now: float) -> list[KubeletCommand]:
        commands: list[KubeletCommand] = []
        for prober in self._probers:
            if prober.next_s is None or prober.running or now < prober.next_s:
                continue
            period_s = prober.probe.period_s
            phase = self._random.random() if self._random is not None and not prober.results else 1.0
            prober.running = True
            # A ticker drops the ticks that a slow probe made it miss, all but one.
            prober.next_s += ((now - prober.next_s) // period_s + phase) * period_s
            commands.append(RunProbe(prober.kind, prober.probe.timeout_s))
        return commands

    def _report_readiness(self) -> list[KubeletCommand]:
        """Reports every change of what the control plane should know about a pod that was started."""
        if not self._is_told_of:
            return []
        reason = self._not_ready_reason()
        if (now_reported := (not reason, reason)) == self._reported:
            return []
        self._reported = now_reported
        return [Report(PodReadinessChanged(self._node, self._pod.name, not reason, reason))]

    @property
    def _is_told_of(self) -> bool:
        states = {process.state for process in self._processes.values()}
        return self._address is not None and not states & {State.STOPPING, State.STOPPED, State.POWERED_OFF}

    @property
    def _restarts(self) -> int:
        return max(process.starts for process in self._processes.values()) - 1

    def _not_ready_reason(self) -> str:
        for process in self._processes.values():
            if process.state is not State.RUNNING:
                return process.exit_reason or f"ContainerCreating: {process.name} is {process.state.value}"
        if "proxy" in self._processes and not self._proxy_ready:
            return "ContainersNotReady: proxy is not ready"
        return next((prober.message for prober in self._probers if prober.kind == "readiness"), "")

    def _down(self, name: Process | None = None) -> None:
        """Forgets what was known about a process, or about all of them, while it ran."""
        if name in (None, "proxy"):
            self._proxy_ready = False
        if name in (None, self._probed):
            self._reset_probers()
        if name is None:
            self._address = None

    def _reset_probers(self) -> None:
        for prober in self._probers:
            prober.reset()

    def _runs(self, name: Process) -> bool:
        return name in self._processes and self._processes[name].state is State.RUNNING

    def _all_run(self) -> bool:
        return all(process.state is State.RUNNING for process in self._processes.values())
