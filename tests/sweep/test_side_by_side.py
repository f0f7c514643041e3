"""A sweep in several lanes, its runs played: who runs where, what is kept of it, and lanes that are lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import typer
from rich.console import Console

from testbed.cli.lanes import Lane
from testbed.cli.sweeping import Sweeping
from testbed.scenario import load_scenario
from testbed.sweep.command import RunLost
from testbed.sweep.folder import Plan, SweepFolder
from testbed.sweep.variants import variants
from tests.results.made_runs import made

SMALL = Path(__file__).parents[1] / "emulation" / "scenarios" / "small.yaml"
SEED = 7
DEADLINE_S = 30.0


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@dataclass
class Played:
    """A run that ends as it is told to: with a verdict, `lost`, `refused`, or after `until`."""

    out: Path
    printed: Path
    seed: int
    how: str
    until: Callable[[], None]
    interrupts: int = 0

    def interrupt(self) -> None:
        self.interrupts += 1

    def wait(self) -> int:
        self.until()
        self.printed.write_text("said so\n")
        match self.how:
            case "lost":
                raise RunLost("machine m2 was lost")
            case "defect":
                raise ValueError("nobody expected that")
            case "refused":
                return 2
            case "interrupted":
                return 130
            case "ended by the signal":
                return -signal.SIGTERM
        made(self.out / f"small-{len(list(self.out.iterdir()))}", self.seed, 2.0, verdict=self.how)
        return 0


@dataclass
class Stage:
    folder: SweepFolder
    ends: Callable[[str, int], str] = lambda machine, tries: "passed"
    until: Callable[[Played], None] = lambda run: None
    runs: list[Played] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    told: StringIO = field(default_factory=StringIO)

    def carry_out(self, *machines: str) -> None:
        lanes = [
            Lane((name,), self._start_on(name), (f"--on={name}",), partial(self._is_there, name)) for name in machines
        ]
        Sweeping(self.folder, lanes, ["--hosting=node"], 5.0, Console(file=self.told, width=100)).carry_out()

    def _is_there(self, machine: str) -> bool:
        return machine not in self.gone

    def _start_on(self, machine: str) -> Callable[[Path, Sequence[str], Path, Path], Played]:
        def start(scenario: Path, options: Sequence[str], out: Path, printed: Path) -> Played:
            assert scenario.is_file()
            assert options[2:] == ["--quiet", f"--on={machine}", "--hosting=node"]
            how = self.ends(machine, len(list(out.iterdir())))
            run = Played(out, printed, int(options[1]), how, lambda: self.until(run))
            self.runs.append(run)
            return run

        return start

    @property
    def carried(self) -> list[tuple[str, int, str, str]]:
        """Variant, seed, machine and verdict of each try."""
        return sorted((each.run.variant, each.run.seed, *each.machines, each.verdict) for each in self.folder.ended)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    planned = variants(["spec.load.sources[east-a].rate=10/s,20/s"])
    scenarios = {each.name: load_scenario(SMALL, list(each.overrides)).resolved_yaml() for each in planned}
    with SweepFolder.begun(tmp_path / "out", Plan("small", planned, SEED, 2), scenarios) as folder:
        yield Stage(folder)


def test_every_run_is_kept_with_the_machines_that_carried_it(stage: Stage) -> None:
    stage.carry_out("m1", "m2")
    kept = SweepFolder.read(stage.folder.path)
    assert kept.ended == stage.folder.ended
    assert Stage(kept).carried == [
        ("A", 7, "m1", "passed"),
        ("A", 8, "m2", "passed"),
        ("B", 7, "m2", "passed"),
        ("B", 8, "m1", "passed"),
    ]
    told = stage.told.getvalue()
    assert "2 variants with 2 seeds each, 4 runs, 2 at a time; about 10 s" in told
    assert "▸ run 1 of 4: A, seed 7 on m1; about 10 s left" in told
    assert "  B, seed 7: passed after 0 s" in told


def test_as_many_runs_go_on_at_a_time_as_there_are_lanes(stage: Stage) -> None:
    both = threading.Barrier(2)

    def until(_: Played) -> None:
        both.wait(DEADLINE_S)

    stage.until = until
    stage.carry_out("m1", "m2")
    assert len(stage.carried) == 4


@pytest.mark.parametrize("how", ["interrupted", "ended by the signal"])
def test_an_interrupt_reaches_every_run_once_and_nothing_new_begins(stage: Stage, how: str) -> None:
    both = threading.Barrier(2)

    def until(run: Played) -> None:
        if both.wait(DEADLINE_S) == 0:
            os.kill(os.getpid(), signal.SIGINT)
        while not run.interrupts:
            time.sleep(0.01)

    stage.ends, stage.until = (lambda machine, tries: how), until
    with pytest.raises(typer.Exit) as ended:
        stage.carry_out("m1", "m2")
    assert ended.value.exit_code == 130
    assert [run.interrupts for run in stage.runs] == [1, 1]
    assert [verdict for *_, verdict in stage.carried] == ["interrupted"] * 2, "which do not count as tries"
    assert "interrupted: the present runs end; once more to end them at once" in stage.told.getvalue()


def test_a_run_that_is_invalid_on_one_machine_is_repeated_on_another(stage: Stage) -> None:
    stage.ends = lambda machine, tries: "invalid" if machine == "m2" else "passed"
    stage.carry_out("m1", "m2")
    assert [each for each in stage.carried if each[3] == "passed"] == [
        ("A", 7, "m1", "passed"),
        ("A", 8, "m1", "passed"),
        ("B", 7, "m1", "passed"),
        ("B", 8, "m1", "passed"),
    ]


def test_what_a_lost_machine_was_to_run_others_run(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    def ends(machine: str, tries: int) -> str:
        if machine == "m2":
            stage.gone.add("m2")
            return "lost"
        return "passed"

    stage.ends = ends
    stage.carry_out("m1", "m2")
    assert [each[2:] for each in stage.carried].count(("m2", "none")) == 1
    assert [each[2:] for each in stage.carried].count(("m1", "passed")) == 4
    assert "no result after 0 s: machine m2 was lost; will be repeated once" in stage.told.getvalue()
    assert "m2 cannot be reached any more: others run what is left" in stage.told.getvalue()
    stage.folder.ended.clear()
    stage.gone.add("m1")
    with pytest.raises(typer.Exit) as ended:
        stage.carry_out("m1", "m2")
    assert ended.value.exit_code == 3
    assert capsys.readouterr().err.startswith("no machines are left: 0 runs are done, 4 are left. ")


def test_what_nobody_expected_is_told_and_does_not_end_the_sweep(stage: Stage) -> None:
    stage.ends = lambda machine, tries: "defect" if machine == "m2" else "passed"
    stage.carry_out("m1", "m2")
    assert [each[2:] for each in stage.carried].count(("m1", "passed")) == 4
    told = " ".join(stage.told.getvalue().split())
    assert "testbed itself failed, please report it: ValueError: nobody expected that; will be repeated once" in told


def test_a_refusal_ends_the_sweep_with_what_was_said(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.ends = lambda machine, tries: "refused" if machine == "m2" else "passed"
    with pytest.raises(typer.Exit) as ended:
        stage.carry_out("m1", "m2")
    assert (ended.value.exit_code, capsys.readouterr().err) == (2, "said so\n")
    assert len(stage.carried) <= 2
