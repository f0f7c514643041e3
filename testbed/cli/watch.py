"""`--watch`: the page of a session that goes on, fed by its events and by what it has recorded so far.

Owns who is asked when: a thread of its own reads what is new once a second, and draws it as often as that is cheap, if
anybody watches. What is drawn is `results.show.live`; it is served until the block ends.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import orjson

from testbed.emulation.driver.events import (
    BringingUp,
    Broken,
    ChangeBegun,
    ChangeSettled,
    ComingUp,
    ConnectingToRay,
    FaultApplied,
    FaultHealed,
    GoingDown,
    Interrupted,
    LoadEnded,
    LoadFailed,
    LoadStarted,
    LoadStopping,
    MachinesJoined,
    MachinesLost,
    MapChanged,
    Ready,
    RecordsCollected,
    SessionEvent,
    TimeBegins,
)
from testbed.emulation.driver.recording import identity
from testbed.objects.core import Pod
from testbed.results.show.html.counted import Happening
from testbed.results.show.live.run import LiveRun, policy
from testbed.results.show.live.server import PageServer
from testbed.results.tables.schemas import Clock
from testbed.scenario import Scenario

EVERY_S = 1.0
DRAWING_SHARE = 0.015
"""Of one core, for drawing. What takes longer is drawn more rarely."""


class Watch:
    """A context manager; `hear` is a watcher of a session. `failed` is told of an exception that ends the page only."""

    def __init__(
        self, scenario: Scenario, run_dir: Path, failed: Callable[[Exception], object], every_s: float = EVERY_S
    ) -> None:
        self._scenario = scenario
        self.live = LiveRun(scenario, run_dir / "logs")
        self._failed = failed
        self._every_s = every_s
        self._heard: queue.SimpleQueue[SessionEvent] = queue.SimpleQueue()
        self.server = PageServer(self.live.page(), policy())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_showing, name="watch", daemon=True)
        self._last: tuple[str, str] | None = None
        self._t0_s = time.monotonic()
        self._began = False
        self._ran: list[tuple[str, float]] = []

    @property
    def url(self) -> str:
        """The link, which is a secret."""
        return self.server.url

    def __enter__(self) -> Watch:
        self.server.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._last is None:
            self._last = "ended", f"ended without a result{f': {error}' if error is not None and str(error) else ''}"
        self._over.set()
        self._thread.join()
        self.server.__exit__(kind, error, traceback)

    def hear(self, event: SessionEvent) -> None:
        self._heard.put(event)

    def ended(self, verdict: str, report: Path) -> None:
        """What the page is to say in the end."""
        self._last = verdict, f"the run has ended; its report is {report}"

    def _keep_showing(self) -> None:
        due_s = 0.0
        try:
            while not self._over.wait(self._every_s):
                self._take()
                if self.server.is_watched and time.monotonic() >= due_s:
                    due_s = time.monotonic() + self._show() / DRAWING_SHARE
            self._take()
            if self._last is not None:
                self.live.doing(self._last[1], self._last[0])
            self._show()
        except Exception as defect:
            # The run goes on without its page.
            self._failed(defect)
            self.server.publish({"doing": "this page has failed; the run goes on"})

    def _take(self) -> None:
        while not self._heard.empty():
            self._tell(self._heard.get())
        self.live.take(time.monotonic())

    def _show(self) -> float:
        """Returns how much of a core it took, in seconds."""
        began_s = time.thread_time()
        self.server.publish(self.live.pieces())
        return time.thread_time() - began_s

    def _tell(self, event: SessionEvent) -> None:
        live = self.live
        match event:
            case ConnectingToRay():
                live.doing("connecting to Ray")
            case MachinesJoined():
                live.doing(str(event))
            case BringingUp(nodes=nodes, pods=pods):
                live.doing(f"bringing up {nodes} nodes and {pods} pods")
            case ComingUp(readiness=readiness) if readiness is not None:
                live.doing(f"{readiness.ready} of {readiness.total} pods are ready")
            case Ready(after_s):
                live.doing(f"ready after {after_s:.1f} s")
            case TimeBegins(t0_s):
                self._begin(t0_s, math.inf)
                live.doing("up", "running")
            case LoadStarted(t0_s, duration_s):
                self._begin(t0_s, duration_s)
                live.load_starts(t0_s - self._t0_s)
                live.doing("sending load", "running")
            case LoadStopping():
                live.doing("load has ended; waiting for what is under way")
            case LoadEnded():
                live.doing("load has ended")
            case ChangeBegun(change, _, at_s):
                live.applied(change, at_s - self._t0_s, (), instant=False)
            case ChangeSettled(change, at_s):
                live.healed(change, at_s - self._t0_s)
            case GoingDown():
                live.doing("going down; collecting what was recorded")
            case FaultApplied(fault, _, impact, lasts):
                live.applied(fault, impact.at_s - self._t0_s, impact.victims, instant=not lasts)
            case FaultHealed(fault, _, at_s):
                live.healed(fault, at_s - self._t0_s)
            case MapChanged(step, _, at_s):
                if step.number == 1 and not step.reverts:
                    live.applied(step.operation, at_s - self._t0_s, (), instant=step.of == 1)
                elif step.reverts or step.number == step.of:
                    live.healed(step.operation, at_s - self._t0_s)
            case RecordsCollected(events, pods):
                self._tell_pods(pods)
                live.happened(
                    Happening(
                        each.t_s - self._t0_s,
                        each.source,
                        each.kind,
                        each.object,
                        each.reason,
                        orjson.dumps(each.details, default=str).decode(),
                    )
                    for each in events
                )
            case LoadFailed(errors):
                live.doing("; ".join(errors))
            case MachinesLost(names):
                live.doing(f"machine lost: {', '.join(names)}")
            case Broken(why):
                live.doing(why)
            case Interrupted():
                live.doing("interrupted: keeping what was measured")

    def _tell_pods(self, pods: Sequence[tuple[Pod, float]]) -> None:
        ran = [(pod.name, started_s) for pod, started_s in pods]
        if ran != self._ran:
            self._ran, clock, topology = ran, Clock(self._t0_s, 0.0), self._scenario.topology
            self.live.pods(identity(pod, started_s, topology, clock) for pod, started_s in pods)

    def _begin(self, t0_s: float, duration_s: float) -> None:
        """What comes first, time or load, is from when all times count."""
        if not self._began:
            self._began, self._t0_s = True, t0_s
            self.live.begins(t0_s, duration_s)
