"""How `run` and `up` begin, and how they end where nothing could be measured: machines, result folders, exit codes."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from testbed.cli.terminal import EXIT_BAD_INPUT, EXIT_INVALID, fail
from testbed.emulation.driver.interrupts import EXIT_INTERRUPTED, RunInterrupted
from testbed.scenario import Scenario

Address = Annotated[
    str | None,
    typer.Option("--address", envvar="RAY_ADDRESS", help="An existing Ray; auto: this machine's. Default: start one."),
]
Machines = Annotated[
    int, typer.Option("--machines", min=1, help="With --address: wait until so many machines have joined.")
]
On = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="M1,M2...", help="With --address: only these machines take part, this one among them."
    ),
]


def only_on(address: str | None, machines: int, on: str | None) -> list[str]:
    """The machines that are to take part, none for all; ends for options that want an address."""
    if machines > 1 and address is None:
        fail("--machines: only a Ray cluster has several; name it with --address", EXIT_BAD_INPUT)
    if on is not None and address is None:
        fail("--on: only a Ray cluster has several machines; name it with --address", EXIT_BAD_INPUT)
    return [name.strip() for name in on.split(",")] if on is not None else []


def start_here(address: str | None) -> None:
    """Before Ray is imported: its settings, unless it is another's at an `address`."""
    from testbed.emulation.driver.local_ray import open_token, prepare

    if warning := open_token():
        print(warning, file=sys.stderr)
    if address is None:
        prepare()


@contextlib.contextmanager
def failures_told(run_dir: Path, scenario: Scenario, *, on_this_machine: bool) -> Iterator[None]:
    """What goes wrong in the block ends the command, in words and with its exit code. What was measured is kept."""
    from testbed.control.placement import PlacementImpossible
    from testbed.emulation.actors.load_generator import LoadGeneratorFailed
    from testbed.emulation.actors.vigil import ActorLost, in_short
    from testbed.emulation.driver.cluster import BringUpFailed
    from testbed.emulation.driver.disk import DiskFull
    from testbed.emulation.driver.member import MachineLost
    from testbed.emulation.driver.ray_connection import RayUnreachable
    from testbed.emulation.driver.result_folder import write_defect
    from testbed.emulation.driver.survey import FleetUnfit
    from testbed.emulation.processes.janitor import remove_folder
    from testbed.network.addresses.backend import AddressesExhausted

    try:
        yield
    except (RunInterrupted, KeyboardInterrupt) as interrupted:
        remove_folder(run_dir)
        fail(str(interrupted) or "interrupted", EXIT_INTERRUPTED)
    except (PlacementImpossible, FleetUnfit, AddressesExhausted, RayUnreachable) as refusal:
        remove_folder(run_dir)
        ours = isinstance(refusal, AddressesExhausted) or (isinstance(refusal, RayUnreachable) and on_this_machine)
        fail(str(refusal), EXIT_INVALID if ours else EXIT_BAD_INPUT)
    except DiskFull as failure:
        began = any(run_dir.glob("logs/*.requests.jsonl"))
        if not began:
            remove_folder(run_dir)
        kept = f"What could be kept: {run_dir}" if began else "Nothing was measured."
        fail(f"{failure}\n{kept}", EXIT_INVALID)
    except (BringUpFailed, LoadGeneratorFailed, MachineLost, ActorLost) as failure:
        _tell_pipelines(run_dir, scenario, str(failure))
        fail(f"{failure}\nLogs: {run_dir / 'logs'}", EXIT_INVALID)
    except Exception as defect:
        # Exit code 1 says that an expectation does not hold: about that nothing is known.
        log = write_defect(run_dir, defect)
        why = f"testbed itself failed, please report it: {in_short(defect)}"
        _tell_pipelines(run_dir, scenario, why)
        fail(f"{why}\nTraceback: {log}", EXIT_INVALID)


def _tell_pipelines(run_dir: Path, scenario: Scenario, why: str) -> None:
    """Leave the report that they read also where there is nothing to report of."""
    from testbed.results.show.junit import JUNIT_FILE, junit_without_results

    expectations = [expectation.text for expectation in scenario.expectations]
    with contextlib.suppress(OSError):
        (run_dir / JUNIT_FILE).write_bytes(junit_without_results(scenario.name, expectations, why))


def new_run_dir(out: Path, name: str) -> Path:
    """A folder of its own for a run; two runs in one second get two folders."""
    # Where no shell has expanded it, as in the entrypoint of a Ray job.
    wanted = (out.expanduser() / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    run_dir = wanted
    for number in count(2):
        try:
            run_dir.mkdir(0o700, parents=True)
            break
        except FileExistsError:
            run_dir = wanted.with_name(f"{wanted.name}-{number}")
        except OSError as error:
            fail(f"--out {out}: cannot make a result folder there: {error.strerror}", EXIT_BAD_INPUT)
    return run_dir
