"""One process of a pod: the states that it can be in, what leads from one to the next, and when it starts again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from testbed.objects.timings import Timings

Process = Literal["app", "proxy"]


class State(Enum):
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    KILLING = "killing"
    BACK_OFF = "back-off"
    STOPPING = "stopping"
    STOPPED = "stopped"
    POWERED_OFF = "powered off"


class Trigger(Enum):
    START = "start"
    STARTED = "started"
    EXITED = "exited"
    UNHEALTHY = "unhealthy"
    STOP = "stop"
    POWER_LOST = "power lost"
    POWER_RESTORED = "power restored"


TRANSITIONS: dict[tuple[State, Trigger], State] = {
    (State.WAITING, Trigger.START): State.STARTING,
    (State.WAITING, Trigger.STOP): State.STOPPED,
    (State.WAITING, Trigger.POWER_LOST): State.POWERED_OFF,
    (State.STARTING, Trigger.STARTED): State.RUNNING,
    (State.STARTING, Trigger.EXITED): State.BACK_OFF,
    (State.STARTING, Trigger.STOP): State.STOPPING,
    (State.STARTING, Trigger.POWER_LOST): State.POWERED_OFF,
    (State.RUNNING, Trigger.EXITED): State.BACK_OFF,
    (State.RUNNING, Trigger.UNHEALTHY): State.KILLING,
    (State.RUNNING, Trigger.STOP): State.STOPPING,
    (State.RUNNING, Trigger.POWER_LOST): State.POWERED_OFF,
    (State.KILLING, Trigger.EXITED): State.BACK_OFF,
    (State.KILLING, Trigger.STOP): State.STOPPING,
    (State.KILLING, Trigger.POWER_LOST): State.POWERED_OFF,
    (State.BACK_OFF, Trigger.START): State.STARTING,
    (State.BACK_OFF, Trigger.STOP): State.STOPPED,
    (State.BACK_OFF, Trigger.POWER_LOST): State.POWERED_OFF,
    (State.STOPPING, Trigger.EXITED): State.STOPPED,
    (State.STOPPING, Trigger.POWER_LOST): State.STOPPED,
    (State.POWERED_OFF, Trigger.STOP): State.STOPPED,
    (State.POWERED_OFF, Trigger.POWER_RESTORED): State.WAITING,
}
"""All that can happen to a process. What is not here came too late (the exit of a process that power loss already
ended, a second stop) and changes nothing."""


@dataclass(slots=True)
class ProcessLifecycle:
    """One container. `backoff_s` is the delay that the next crash will be given; None before the first crash."""

    name: Process
    state: State = State.WAITING
    start_s: float | None = None
    """When to start it while it is in BACK_OFF."""
    starts: int = 0
    backoff_s: float | None = None
    restarted_s: float = 0.0
    exit_reason: str = ""

    def move(self, trigger: Trigger) -> bool:
        """True when the table has such a transition."""
        new = TRANSITIONS.get((self.state, trigger))
        if new is not None:
            self.state = new
        return new is not None

    def back_off(self, code: int, now_s: float, timings: Timings) -> None:
        """When it starts again: the first time at once, then 10 s, 20 s, ... after its exit, at most 5 minutes.

        Forgotten after 10 minutes without a crash. Kubernetes: Pod lifecycle, "Container restart policy" (initial
        crash: immediate restart; repeated crashes: exponential back-off); kuberuntime_manager.go, doBackOff.
        """
        expired = now_s - self.restarted_s > timings.restart_backoff_reset_s
        self.exit_reason = f"{'Error' if code else 'Completed'}: {self.name} exited with code {code}"
        if self.backoff_s is None or expired:
            self.start_s = now_s
            self.backoff_s = timings.restart_backoff_initial_s
        else:
            self.start_s = now_s + self.backoff_s
            last = f"restarting failed {self.name}, last exit code {code}"
            self.exit_reason = f"CrashLoopBackOff: back-off {self.backoff_s:g}s {last}"
            self.backoff_s = min(2 * self.backoff_s, timings.restart_backoff_max_s)
