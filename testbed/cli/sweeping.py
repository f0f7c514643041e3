"""A sweep as it goes on: a run after the other, with a line for each, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext

from rich.console import Console
from rich.live import Live
from rich.text import Text

from testbed.cli.terminal import EXIT_BAD_INPUT, EXIT_INVALID, fail
from testbed.emulation.driver.interrupts import EXIT_INTERRUPTED, take_signals
from testbed.sweep.command import RunCommand, RunRefused
from testbed.sweep.folder import SweepFolder
from testbed.sweep.plan import Ended, Run, left_s


class Sweeping:
    """Carries the runs out, one after the other, and tells of it."""

    def __init__(self, folder: SweepFolder, options: Sequence[str], guess_s: float, terminal: Console) -> None:
        """`guess_s` is how long a run takes, as long as none has shown it."""
        self._folder = folder
        self._options = options
        self._guess_s = guess_s
        self._terminal = terminal
        self._interrupts = 0
        self._command: RunCommand | None = None
        self._line = ""
        self._began_s = self._ends_s = 0.0

    def carry_out(self) -> None:
        """Until nothing is left to run; ends the command if it is interrupted or cannot go on."""
        take_signals(self._interrupt, self._hang_up)
        self._announce()
        live = Live(console=self._terminal, get_renderable=self._now, refresh_per_second=4, transient=True)
        with live if self._terminal.is_terminal else nullcontext():
            while left := self._folder.due():
                if self._interrupts:
                    break
                self._tell_end(self._run(left), len(self._folder.due()))
        if left:
            done = sum(each.is_complete for each in self._folder.ended)
            fail(
                f"interrupted: {done} runs are done, {len(left)} are left. The same command again goes on, "
                f"`testbed compare {self._folder.path}` shows what there is",
                EXIT_INTERRUPTED,
            )

    def _run(self, left: Sequence[Run]) -> Ended:
        folder, run = self._folder, left[0]
        left_for_s = left_s(len(left), folder.ended, self._guess_s)
        number = len(folder.ended) + 1
        self._began_s = time.monotonic()
        self._ends_s = self._began_s + left_for_s
        self._line = f"run {number} of {number + len(left) - 1}: {run.variant}, seed {run.seed}"
        self._say(f"▸ {self._line}; about {_duration(left_for_s)} left")
        try:
            command = RunCommand(run, folder.scenario_file(run.variant), folder.path, folder.tries(run), self._options)
            self._command = command
            if self._interrupts:
                command.interrupt()  # it came while the command was started
            ended = command.wait()
            folder.record(ended)
        except RunRefused as refusal:
            fail(str(refusal), EXIT_BAD_INPUT)
        except OSError as error:
            fail(f"{error.filename or folder.path}: {error.strerror}", EXIT_INVALID)
        finally:
            self._command = None
        return ended

    def _interrupt(self) -> None:
        """The first lets the run end in order, the second at once, as they do with a run alone."""
        self._interrupts += 1
        if self._command is not None:
            self._command.interrupt()
        if self._interrupts == 1:
            self._say("interrupted: the present run ends; once more to end it at once")

    def _hang_up(self) -> None:
        if not self._interrupts:
            self._interrupt()

    def _announce(self) -> None:
        plan, left, ended = self._folder.plan, self._folder.due(), self._folder.ended
        number = len(plan.variants) * plan.repeat
        there = sum(each.is_complete for each in ended)
        self._say(
            f"▸ {plan.name}: {_counted(len(plan.variants), 'variant')} with {_counted(plan.repeat, 'seed')} each, "
            f"{_counted(number, 'run')}"
            + (f", of which {there} are there" if there else "")
            + (f"; about {_duration(left_s(len(left), ended, self._guess_s))}" if left else "")
        )
        for variant in plan.variants:
            self._say(f"  {variant.name}  {', '.join(variant.varied) or 'as it is'}")

    def _tell_end(self, ended: Ended, left: int) -> None:
        why = f": {ended.why}" if ended.why else ""
        again = self._folder.due().count(ended.run)
        then = "; will be repeated once" if again and ended.verdict in ("invalid", "none") else ""
        verdict = "no result" if ended.verdict == "none" else ended.verdict
        self._say(f"  {verdict} after {_duration(ended.took_s)}{why}{then}")

    def _now(self) -> Text:
        now_s = time.monotonic()
        text = f"  {self._line}   [{now_s - self._began_s:.0f} s; about {_duration(self._ends_s - now_s)} left]"
        return Text(text, overflow="ellipsis", no_wrap=True)

    def _say(self, line: str) -> None:
        self._terminal.print(Text(line), soft_wrap=True)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _duration(value_s: float) -> str:
    return f"{max(0.0, value_s):.0f} s" if value_s < 90 else f"{value_s / 60:.0f} min"
