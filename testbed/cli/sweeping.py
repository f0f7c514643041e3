"""A sweep as it goes on: its runs, one after the other or side by side, with a line for each that begins and each that
ends, and how long the rest will take."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NoReturn

from rich.console import Console
from rich.live import Live
from rich.text import Text

from testbed.cli.lanes import Lane
from testbed.cli.terminal import EXIT_BAD_INPUT, EXIT_INVALID, fail
from testbed.emulation.driver.interrupts import EXIT_INTERRUPTED, take_signals
from testbed.sweep.command import RunCommand, RunLost, RunRefused
from testbed.sweep.folder import SweepFolder
from testbed.sweep.plan import Ended, Machines, Run, assigned, left_s


@dataclass(slots=True)
class _UnderWay:
    """A run in a lane; its command once that has been started."""

    run: Run
    line: str
    began_s: float
    command: RunCommand | None = None


@dataclass(frozen=True, slots=True)
class _LaneFree:
    """What became of the run that was there."""

    lane: Lane
    outcome: Ended | RunRefused | OSError


@dataclass(frozen=True, slots=True)
class _Interrupted:
    """A signal came. As an event, since a signal may come between any two instructions."""


class Sweeping:
    """Carries the runs out, one in each lane at a time, and tells of it."""

    def __init__(
        self, folder: SweepFolder, lanes: Sequence[Lane], options: Sequence[str], guess_s: float, terminal: Console
    ) -> None:
        """`guess_s` is how long a run takes, as long as none has shown it."""
        self._folder = folder
        self._lanes = {lane.machines: lane for lane in lanes}
        self._options = options
        self._guess_s = guess_s
        self._terminal = terminal
        self._events: SimpleQueue[_LaneFree | _Interrupted] = SimpleQueue()
        self._starting = threading.Lock()
        """Held while a command is entered, so that each has every interrupt once."""
        self._interrupts = 0
        self._under_way: dict[Machines, _UnderWay] = {}
        self._ends_s = 0.0

    def carry_out(self) -> None:
        """Until nothing is left to run; ends the command if it is interrupted or cannot go on."""
        take_signals(self._signalled, self._hung_up)
        self._announce()
        live = Live(console=self._terminal, get_renderable=self._now, refresh_per_second=4, transient=True)
        failure: RunRefused | OSError | None = None
        with live if self._terminal.is_terminal else nullcontext():
            while True:
                if not self._interrupts and failure is None:
                    self._start_what_can_be()
                if not self._under_way:
                    break
                match self._events.get():
                    case _Interrupted():
                        self._interrupt()
                    case _LaneFree(lane, outcome):
                        del self._under_way[lane.machines]
                        if isinstance(outcome, Ended):
                            self._record(outcome)
                        else:
                            failure = failure or outcome
                            self._end_all()
        if failure is not None:
            self._fail(failure)
        if left := len(self._folder.due()):
            self._fail_unfinished(left)

    def _start_what_can_be(self) -> None:
        """In every lane that is free, and that still is there, what is next for it."""
        for lane in [lane for lane in self._lanes.values() if lane.machines not in self._under_way]:
            left = self._folder.due()
            running = {machines: each.run for machines, each in self._under_way.items()}
            next_ = assigned(list(self._lanes), left, running, self._folder.ended)[lane.machines]
            if next_ and not lane.is_there():
                del self._lanes[lane.machines]
                self._say(f"  {_named(lane.machines)} cannot be reached any more: others run what is left")
                # They may have been passed before.
                return self._start_what_can_be()
            if next_:
                self._start(lane, next_[0], len(left))
        return None

    def _start(self, lane: Lane, run: Run, left: int) -> None:
        """`left` are the runs that are not complete, those included that are under way."""
        now_s = time.monotonic()
        left_for_s = left_s(left, self._folder.ended, self._guess_s, len(self._lanes))
        self._ends_s = now_s + left_for_s
        number = len(self._folder.ended) + len(self._under_way) + 1
        of = len(self._folder.ended) + left
        on = f" on {_named(lane.machines)}" if self._tells_machines else ""
        line = f"run {number} of {of}: {run.variant}, seed {run.seed}{on}"
        self._say(f"▸ {line}; about {_duration(left_for_s)} left")
        under_way = self._under_way[lane.machines] = _UnderWay(run, line, now_s)
        threading.Thread(target=self._carry_out, args=(lane, under_way), name=line, daemon=True).start()

    def _carry_out(self, lane: Lane, under_way: _UnderWay) -> None:
        """In a thread of its own."""
        folder, run = self._folder, under_way.run
        options = [*lane.options, *self._options]
        began_s = time.monotonic()
        outcome: Ended | RunRefused | OSError
        try:
            command = RunCommand(
                run,
                folder.scenario_file(run.variant),
                folder.path,
                folder.tries(run),
                options,
                lane.start,
                lane.machines,
            )
            with self._starting:
                under_way.command = command
                came_meanwhile = self._interrupts
            if came_meanwhile:
                command.interrupt()
            outcome = command.wait()
        except RunLost as lost:
            outcome = Ended(run, "none", None, time.monotonic() - began_s, str(lost), lane.machines)
        except RunRefused as refusal:
            outcome = refusal
            if not lane.is_there():
                outcome = Ended(run, "none", None, time.monotonic() - began_s, str(refusal), lane.machines)
        except OSError as error:
            outcome = error
        except Exception as defect:
            # Else everybody would wait for it.
            why = f"testbed itself failed, please report it: {type(defect).__name__}: {defect}"
            outcome = Ended(run, "none", None, time.monotonic() - began_s, why, lane.machines)
        self._events.put(_LaneFree(lane, outcome))

    def _record(self, ended: Ended) -> None:
        try:
            self._folder.record(ended)
        except OSError as error:
            self._end_all()
            self._fail(error)
        self._tell_end(ended)

    def _signalled(self) -> None:
        self._events.put(_Interrupted())

    def _hung_up(self) -> None:
        """A terminal that is closed may say so twice; nobody is in a hurry."""
        if not self._interrupts:
            self._signalled()

    def _interrupt(self) -> None:
        """The first lets the runs end in order, the second at once, as they do with a run alone."""
        if not self._interrupts:
            runs = "the present run ends" if len(self._under_way) == 1 else "the present runs end"
            it = "it" if len(self._under_way) == 1 else "them"
            self._say(f"interrupted: {runs}; once more to end {it} at once")
        self._end_all()

    def _end_all(self) -> None:
        with self._starting:
            self._interrupts += 1
            commands = [each.command for each in self._under_way.values() if each.command is not None]
        for command in commands:
            command.interrupt()

    def _fail(self, failure: RunRefused | OSError) -> NoReturn:
        if isinstance(failure, RunRefused):
            fail(str(failure), EXIT_BAD_INPUT)
        fail(f"{failure.filename or self._folder.path}: {failure.strerror}", EXIT_INVALID)

    def _fail_unfinished(self, left: int) -> NoReturn:
        done = sum(each.is_complete for each in self._folder.ended)
        why = "interrupted" if self._interrupts else "no machines are left"
        fail(
            f"{why}: {done} runs are done, {left} are left. The same command again goes on, "
            f"`testbed compare {self._folder.path}` shows what there is",
            EXIT_INTERRUPTED if self._interrupts else EXIT_INVALID,
        )

    @property
    def _tells_machines(self) -> bool:
        return any(self._lanes)

    def _announce(self) -> None:
        plan, left, ended = self._folder.plan, self._folder.due(), self._folder.ended
        number = len(plan.variants) * plan.repeat
        there = sum(each.is_complete for each in ended)
        lanes = min(len(self._lanes), max(1, len(left)))
        self._say(
            f"▸ {plan.name}: {_counted(len(plan.variants), 'variant')} with {_counted(plan.repeat, 'seed')} each, "
            f"{_counted(number, 'run')}"
            + (f", of which {there} are there" if there else "")
            + (f", {lanes} at a time" if lanes > 1 else "")
            + (f"; about {_duration(left_s(len(left), ended, self._guess_s, lanes))}" if left else "")
        )
        for variant in plan.variants:
            self._say(f"  {variant.name}  {', '.join(variant.varied) or 'as it is'}")
        if lanes > 1 and left:
            self._say(f"  each on machines of its own: {'; '.join(map(_named, self._lanes))}")

    def _tell_end(self, ended: Ended) -> None:
        why = f": {ended.why}" if ended.why else ""
        again = self._folder.due().count(ended.run)
        then = "; will be repeated once" if again and ended.verdict in ("invalid", "none") else ""
        verdict = "no result" if ended.verdict == "none" else ended.verdict
        which = f"{ended.run.variant}, seed {ended.run.seed}: " if len(self._lanes) > 1 else ""
        self._say(f"  {which}{verdict} after {_duration(ended.took_s)}{why}{then}")

    def _now(self) -> Text:
        now_s = time.monotonic()
        under_way = [f"{each.line}   [{now_s - each.began_s:.0f} s]" for each in list(self._under_way.values())]
        lines = [*under_way, f"about {_duration(self._ends_s - now_s)} left"]
        return Text("\n".join(f"  {line}" for line in lines), overflow="ellipsis", no_wrap=True)

    def _say(self, line: str) -> None:
        self._terminal.print(Text(line), soft_wrap=True)


def _named(machines: Machines) -> str:
    return " + ".join(machines)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _duration(value_s: float) -> str:
    return f"{max(0.0, value_s):.0f} s" if value_s < 90 else f"{value_s / 60:.0f} min"
