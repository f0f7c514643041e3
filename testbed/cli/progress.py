"""What a person sees while a run goes on: bring-up, then rate, errors and latency, and the faults as they come.

Owns the live lines in the terminal, and that no stage is silent for long. What happened is told afterwards by
`results.show.report`.
"""

from __future__ import annotations

import math
import threading
import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from testbed.cli.guests import guest_lines
from testbed.emulation.driver.events import (
    Applied,
    BringingUp,
    Broken,
    ChangeBegun,
    ChangeSettled,
    ComingUp,
    ConnectingToRay,
    Deleted,
    FaultApplied,
    FaultHealed,
    GoingDown,
    GuestsLeft,
    GuestsWelcome,
    Interrupted,
    LoadEnded,
    LoadFailed,
    LoadReported,
    LoadStarted,
    LoadStopping,
    MachinesJoined,
    MachinesLost,
    MapChanged,
    MapDelivered,
    Ready,
    RecordsCollected,
    SessionEvent,
    TimeBegins,
)
from testbed.results.tables.facts import named

SILENT_AT_MOST_S = 4.0
"""Where lines cannot be rewritten, a stage that goes on says so."""
_NEVER_S = math.inf
_UP = (
    "up; from any terminal: testbed status, inject FILE, heal FAULT, apply FILE, logs POD, load start; "
    "testbed down or Ctrl-C ends it"
)


class LiveProgress:
    """A line that is rewritten on a terminal; elsewhere one every few seconds, and every tenth second of load.

    A thread of its own writes it, so that it comes whatever the run waits for. A context manager.
    """

    def __init__(self, console: Console, silent_at_most_s: float = SILENT_AT_MOST_S, *, by_hand: bool = False) -> None:
        """`by_hand`: a person drives the session."""
        self._console = console
        self._by_hand = by_hand
        self._silent_at_most_s = silent_at_most_s
        self._doing = ""
        self._since_s = self._told_s = self._began_s = time.monotonic()
        self._load: LoadStarted | None = None
        self._t0_s: float | None = None
        """From when times count; None while nothing has begun."""
        self._tens_told = 0
        self._live = (
            Live(console=console, get_renderable=self._line, refresh_per_second=8, transient=True)
            if console.is_terminal
            else None
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_telling, name="progress", daemon=True)

    def __enter__(self) -> LiveProgress:
        if self._live is not None:
            self._live.start()
        else:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        if self._live is not None:
            self._live.stop()
        else:
            self._thread.join()

    def hear(self, event: SessionEvent) -> None:
        match event:
            case ConnectingToRay(address):
                self._stage("starting Ray" if address is None else f"connecting to Ray at {address}")
            case MachinesJoined():
                self._stage(str(event))
            case BringingUp():
                self._stage(_bringing_up(event))
            case ComingUp():
                self._doing = _how_far(event)
            case Ready(after_s):
                self._stage(f"ready after {after_s:.1f} s" + ("" if self._by_hand else "; starting Locust"))
            case TimeBegins(t0_s):
                self._t0_s, self._silent_at_most_s = t0_s, _NEVER_S
                self._stage(_UP)
            case ChangeBegun(change, objects, at_s):
                self._tell_fault(at_s, change, ", ".join(f"{kind} {name}" for kind, name in objects))
            case ChangeSettled(change, at_s):
                self._tell_fault(at_s, change, "all is as declared")
            case Applied(objects):
                self._stage(f"applied {', '.join(f'{kind} {name}' for kind, name in objects)}")
            case Deleted(kind, name):
                self._stage(f"deleted {kind} {name}")
            case LoadStarted(t0_s, duration_s):
                self._load = event
                self._t0_s = self._t0_s if self._by_hand else t0_s
                self._stage("sending load" + ("" if self._by_hand else f" for {duration_s:g} s"))
            case GuestsWelcome(lines, pages, machines):
                for line in guest_lines(lines, pages, machines):
                    self._stage(line)
            case GuestsLeft():
                pass
            case LoadReported():
                self._show_load(event)
            case LoadFailed(errors):
                self._stage("; ".join(errors))
            case LoadStopping():
                pass
            case LoadEnded() if self._by_hand:
                self._stage("load has stopped")
            case GoingDown():
                self._stage("going down; collecting what was recorded")
            case LoadEnded():
                self._stage("load has ended; collecting what was recorded")
            case FaultApplied(fault, _, impact):
                hit = named(impact.victims)
                self._tell_fault(
                    impact.at_s, fault, f"applied to {hit}" if hit else f"hit nothing: {impact.hit_nothing}"
                )
            case FaultHealed(fault, _, at_s):
                self._tell_fault(at_s, fault, "healed")
            case MapChanged(step, version, at_s):
                back = "given up, all back" if step.gives_up else "back"
                which = back if step.reverts else f"step {step.number} of {step.of}"
                self._tell_fault(at_s, step.operation, f"{which}: map version {version}")
            case MapDelivered() | RecordsCollected():
                pass
            case MachinesLost(names):
                self._stage(f"machine lost: {', '.join(names)}; keeping what was measured")
            case Broken(why):
                self._stage(f"{why}; keeping what was measured")
            case Interrupted() if self._load is not None:
                self._stage("interrupted: keeping what was measured; once more to end at once")
            case Interrupted():
                pass

    def _stage(self, text: str) -> None:
        self._since_s, self._doing = time.monotonic(), text.partition(";")[0]
        self._print(Text.assemble(("▸ ", "cyan"), text))

    def _tell_fault(self, at_s: float, fault: str, what: str) -> None:
        since_s = self._began_s if self._t0_s is None else self._t0_s
        self._print(Text.assemble(("⚡ ", "yellow"), f"{at_s - since_s:7.3f} s  {fault}: {what}"))

    def _show_load(self, reported: LoadReported) -> None:
        seconds = [progress for progress in reported.zones.values() if progress.t_s > 0]
        if not seconds or self._t0_s is None:
            return
        t_s = reported.at_s - self._t0_s
        rate = sum(progress.sent_per_s for progress in seconds)
        bad = sum(progress.failed + progress.unknown for progress in reported.zones.values())
        p99_ms = max(progress.p99_ms for progress in seconds)
        of = "" if self._by_hand or self._load is None else f" / {self._load.duration_s:g}"
        line = f"{t_s:5.1f}{of} s   {rate:6.0f} requests/s   p99 {p99_ms:7.1f} ms   not ok so far {bad}"
        # A busy machine's reports are late, so that none may come within the tenth second itself.
        tens = int(t_s // 10)
        if self._live is None and tens > self._tens_told:
            self._print(Text(f"  {line}"))
        self._tens_told = tens
        self._doing, self._told_s = line, time.monotonic()

    def _line(self) -> Text:
        """What is going on, and for how long by now."""
        elapsed_s = time.monotonic() - self._since_s
        return Text(f"  {self._doing}   [{elapsed_s:.0f} s]", overflow="ellipsis", no_wrap=True)

    def _keep_telling(self) -> None:
        while not self._over.wait(max(0.05, min(SILENT_AT_MOST_S, self._silent_until_s() - time.monotonic()))):
            if time.monotonic() >= self._silent_until_s():
                self._print(self._line())

    def _silent_until_s(self) -> float:
        return self._told_s + self._silent_at_most_s

    def _print(self, line: Text) -> None:
        self._told_s = time.monotonic()
        self._console.print(line, soft_wrap=True)


def _bringing_up(event: BringingUp) -> str:
    machines = event.machines
    where = "" if len(machines) == 1 else f" on {len(machines)} machines ({', '.join(machines)})"
    hosts = "in actors of their own" if event.hosting == "actor" else "hosted by their nodes' agents"
    return (
        f"{event.name}: bringing up {event.nodes} nodes and {event.pods} pods{where} "
        f"({event.profile} profile, seed {event.seed}; pods {hosts})"
    )


def _how_far(event: ComingUp) -> str:
    if (readiness := event.readiness) is None:
        return f"{event.answering} of {event.actors} master, node agents and load generators are up"
    started, ready, total = min(readiness.started, readiness.total), readiness.ready, readiness.total
    waiting = f"; waiting for {readiness.waiting_for[0]}" if readiness.waiting_for else ""
    return f"{started} of {total} pods started, {ready} ready{waiting}"
