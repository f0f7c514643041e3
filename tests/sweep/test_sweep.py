"""A sweep from the command line, its runs played: what is run, repeated, kept, refused and told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed
from typer.testing import CliRunner, Result

from testbed.cli import app
from testbed.sweep.folder import SweepFolder

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests" / "emulation" / "scenarios" / "small.yaml"
RATES = ("--set", "spec.load.sources[east-a].rate=10/s,20/s")
PLAYED = ("-c", "from tests.sweep.played import main; main()")


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Play:
    """Sweeps whose runs end as they are told to."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "play.json"
        self.out = folder / "out"
        self.ends({})

    def ends(self, how: dict[str, list[str]]) -> None:
        self.file.write_bytes(orjson.dumps(how))

    def sweep(self, *arguments: str | Path, scenario: Path = SMALL) -> Result:
        given = ["sweep", str(scenario), "--out", str(self.out), *map(str, arguments)]
        return CliRunner().invoke(app, given, env={"COLUMNS": "100"})

    @property
    def played(self) -> list[str]:
        """Rate and seed of every try."""
        return Path(f"{self.file}.played").read_text().splitlines()


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    play = Play(tmp_path)
    monkeypatch.setattr("testbed.sweep.command.COMMAND", PLAYED)
    monkeypatch.setenv("PLAY", str(play.file))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return play


def test_every_variant_is_run_with_every_seed_and_then_they_are_compared(play: Play) -> None:
    result = play.sweep(*RATES, "--repeat", "4", "--seed", "7")
    assert result.exit_code == 0, result.output
    assert play.played == ["10/s 7", "20/s 7", "20/s 8", "10/s 8", "10/s 9", "20/s 9", "20/s 10", "10/s 10"]
    lines = result.stdout.splitlines()
    assert lines[0].startswith("▸ small: 2 variants with 4 seeds each, 8 runs; about ")
    assert lines[1:3] == [
        "  A  spec.load.sources[east-a].rate=10/s",
        "  B  spec.load.sources[east-a].rate=20/s",
    ]
    assert "▸ run 5 of 8: A, seed 9" in result.stdout
    assert "A  spec.load.sources[east-a].rate=10/s (4 runs, seeds 7, 8, 9, 10)" in lines
    assert "worse (p 0.029)" in result.stdout
    assert "spec.load.sources[east-a].rate=20/s" in (play.out / "comparison.html").read_text()
    figures = pq.read_table(play.out / "figures.parquet").to_pylist()
    assert {(row["variant"], row["seed"]) for row in figures} == {
        (name, seed) for name in "AB" for seed in range(7, 11)
    }


def test_the_same_command_again_runs_nothing_and_more_seeds_only_these(play: Play) -> None:
    play.sweep(*RATES, "--repeat", "2")
    again = play.sweep(*RATES, "--repeat", "2")
    assert (again.exit_code, len(play.played)) == (0, 4)
    assert "4 runs, of which 4 are there" in again.stdout
    assert play.sweep(*RATES, "--repeat", "3").exit_code == 0
    assert play.played[4:] == ["10/s 2", "20/s 2"]


def test_invalid_runs_are_repeated_once_listed_and_in_no_figure(play: Play) -> None:
    play.ends({"10/s 0": ["invalid", "passed"], "20/s 0": ["invalid", "invalid", "passed"]})
    result = play.sweep(*RATES, "--repeat", "2")
    assert result.exit_code == 0
    assert play.played == ["10/s 0", "20/s 0", "10/s 0", "20/s 0", "20/s 1", "10/s 1"]
    assert result.stdout.count("will be repeated once") == 2
    assert result.stdout.count("left out, invalid: ") == 3
    assert "A  spec.load.sources[east-a].rate=10/s (2 runs, seeds 0, 1)" in result.stdout
    assert "B  spec.load.sources[east-a].rate=20/s (1 run, seeds 1)" in result.stdout


def test_runs_that_fail_or_crash_do_not_end_the_sweep(play: Play) -> None:
    play.ends({"10/s 0": ["failed"], "20/s 0": ["crash", "no room"], "10/s 1": ["no room"], "20/s 1": ["passed"]})
    result = play.sweep(*RATES, "--repeat", "2")
    assert result.exit_code == 0, result.output
    assert "no result after 0 s: ended by SIGKILL; will be repeated once" in result.stdout
    assert "no result after 0 s: no address is free\n" in result.stdout
    assert "left out, without a result: " in result.stdout
    assert "A  spec.load.sources[east-a].rate=10/s (1 run, seeds 0)" in result.stdout


def test_a_variant_without_a_valid_run_is_no_success(play: Play) -> None:
    play.ends({"20/s 0": ["invalid"]})
    result = play.sweep(*RATES, "--repeat", "1")
    assert (result.exit_code, result.stderr) == (3, "no run of B is valid\n")


def test_all_that_is_wrong_with_any_variant_is_told_before_the_first_run(play: Play) -> None:
    result = play.sweep("--set", "spec.load.duration=4s,5,30x", "--set", "spec.laod=1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "--set spec.laod=1: spec.laod: unknown key; did you mean 'load'?",
        "--set spec.load.duration=5: spec.load.duration: a duration needs a unit: write 5ms or 5s (in B)",
        "--set spec.load.duration=30x: spec.load.duration: must be a duration such as 250ms or 20s, not '30x' (in C)",
        "A is spec.load.duration=4s",
        "B is spec.load.duration=5",
        "C is spec.load.duration=30x",
    ]
    assert "A and B are the same scenario" in play.sweep("--set", "spec.load.duration=4s,4000ms").stderr
    assert not play.out.exists()


def test_a_folder_of_another_sweep_is_refused_with_what_is_another(play: Play, tmp_path: Path) -> None:
    play.sweep(*RATES, "--repeat", "2")
    changed = tmp_path / "changed.yaml"
    changed.write_text(SMALL.read_text().replace("work: 1ms", "work: 2ms"))
    refused = play.sweep(*RATES, "--repeat", "2", scenario=changed)
    assert refused.exit_code == 2
    assert f"{play.out}: is the folder of another sweep; name another one with --out\n" in refused.stderr
    assert "  variant A: spec.services.web.workload.work.mean was 1ms, is now 2ms\n" in refused.stderr
    others = play.sweep("--set", "spec.load.sources[0].rate=10/s,30/s")
    assert "its variants were A (spec.load.sources[east-a].rate=10/s), B (" in others.stderr
    assert "its seeds began with 0, and would begin with 5" in play.sweep(*RATES, "--repeat", "2", "--seed", "5").stderr
    assert "it has 2 seeds, and --repeat says 1" in play.sweep(*RATES, "--repeat", "1").stderr
    expecting = tmp_path / "expecting.yaml"
    expecting.write_text(SMALL.read_text() + "  expect: [{metric: success_rate, atLeast: 1%}]\n")
    assert "spec.expect was another" in play.sweep(*RATES, "--repeat", "2", scenario=expecting).stderr
    commented = tmp_path / "commented.yaml"
    commented.write_text("# nothing else\n" + SMALL.read_text())
    assert play.sweep(*RATES, "--repeat", "2", scenario=commented).exit_code == 0
    assert len(play.played) == 4


def test_a_folder_with_other_files_or_another_sweep_under_way_is_left_alone(play: Play) -> None:
    play.out.mkdir()
    (play.out / "mine").write_text("precious")
    assert "it is no folder of a sweep" in play.sweep(*RATES).stderr
    (play.out / "mine").unlink()
    play.sweep(*RATES, "--repeat", "1")
    with SweepFolder.begun(play.out, SweepFolder.read(play.out).plan, {}):
        assert "another sweep is going on in this folder" in play.sweep(*RATES, "--repeat", "1").stderr
    assert play.sweep(*RATES, "--repeat", "1").exit_code == 0


def test_runs_whose_folder_is_gone_and_lines_that_are_torn_are_run_again(play: Play) -> None:
    play.sweep(*RATES, "--repeat", "2")
    journal = play.out / "runs.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    (play.out / "runs" / "A-seed-0" / "small-0" / "summary.json").unlink()
    assert play.sweep(*RATES, "--repeat", "2").exit_code == 0
    assert play.played[4:] == ["10/s 0", "10/s 1"]
    assert play.sweep(*RATES, "--repeat", "2").exit_code == 0
    assert len(play.played) == 6


def test_a_sweep_is_compared_by_its_folder_and_its_variants_keep_their_names(play: Play) -> None:
    play.ends({"10/s 0": ["no room"]})
    play.sweep(*RATES, "--repeat", "2")
    result = CliRunner().invoke(app, ["compare", str(play.out)], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    assert "B  spec.load.sources[east-a].rate=20/s (2 runs, seeds 0, 1)" in result.stdout
    (play.out / "sweep.json").write_text("{}")
    damaged = CliRunner().invoke(app, ["compare", str(play.out)])
    assert (damaged.exit_code, "sweep.json: cannot be read" in damaged.stderr) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_present_run_keeps_the_others_and_the_sweep_goes_on_later(
    play: Play, number: signal.Signals
) -> None:
    play.ends({"20/s 0": ["hang"]})
    command = [sys.executable, "-c", f"import testbed.sweep.command as c; c.COMMAND = {PLAYED!r}; "
               "from testbed.cli import main; main()"]  # fmt: skip
    arguments = ["sweep", str(SMALL), "--out", str(play.out), *RATES, "--repeat", "2"]
    sweep = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    hangs = Path(f"{play.file}.hangs")
    try:
        assert retry(
            retry=retry_if_result(lambda there: not there),
            stop=stop_after_delay(60),
            wait=wait_fixed(0.05),
            retry_error_callback=lambda _: False,
        )(hangs.exists)()
        sweep.send_signal(number)
        stdout, stderr = sweep.communicate(timeout=60)
    finally:
        sweep.kill()
    assert sweep.returncode == 130
    assert "interrupted: the present run ends" in stdout.decode()
    assert stderr.decode().startswith("interrupted: 1 runs are done, 3 are left. The same command again goes on")
    play.ends({})
    assert play.sweep(*RATES, "--repeat", "2").exit_code == 0
    assert play.played == ["10/s 0", "20/s 0", "20/s 0", "20/s 1", "10/s 1"]


def test_a_run_ends_with_a_sweep_that_is_killed(play: Play) -> None:
    play.ends({"10/s 0": ["hang"]})
    command = [sys.executable, "-c", f"import testbed.sweep.command as c; c.COMMAND = {PLAYED!r}; "
               "from testbed.cli import main; main()"]  # fmt: skip
    sweep = subprocess.Popen([*command, "sweep", str(SMALL), "--out", str(play.out), *RATES], cwd=ROOT,
                             stdout=subprocess.DEVNULL)  # fmt: skip
    hangs = Path(f"{play.file}.hangs")

    def until(met: object) -> None:
        assert retry(
            retry=retry_if_result(lambda there: not there),
            stop=stop_after_delay(60),
            wait=wait_fixed(0.05),
            retry_error_callback=lambda _: False,
        )(met)()  # type: ignore[call-overload]

    until(hangs.exists)
    of_the_run = [each for each in os.listdir("/proc") if each.isdigit() and _is_of(each, str(play.out), sweep.pid)]
    assert len(of_the_run) == 1
    sweep.kill()
    sweep.wait()
    until(lambda: not Path("/proc", of_the_run[0]).exists())


def _is_of(process: str, out: str, sweep: int) -> bool:
    try:
        words = Path("/proc", process, "cmdline").read_bytes().decode().split("\0")
    except OSError:
        return False
    return any(word.startswith(out) for word in words) and process != str(sweep)
