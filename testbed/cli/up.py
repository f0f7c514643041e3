"""`testbed up` and `down`: a cluster that stays up, and its end."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from testbed.cli.beginning import Address, Machines, On, failures_told, new_run_dir, only_on, start_here
from testbed.cli.clusters import ClusterName, asked, clusters, meant
from testbed.cli.scenarios import Overrides, ScenarioFile, Seed, Watched, dry_run, load, warn
from testbed.cli.terminal import EXIT_BAD_INPUT, console, fail
from testbed.emulation.driver import registry
from testbed.emulation.driver.channel import Declined, Unreachable, ask
from testbed.emulation.driver.interrupts import EXIT_INTERRUPTED, Interrupts
from testbed.emulation.driver.registry import NameTaken, RegistryUnsafe
from testbed.objects.places import DNS_LABEL
from testbed.scenario import Scenario

POLL_S = 0.1


def up(
    file: ScenarioFile,
    name: Annotated[str | None, typer.Option("--name", help="What it is called. Default: as the scenario.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is up; `testbed down` takes it down.")
    ] = False,
    with_load: Annotated[bool, typer.Option("--load", help="Send the declared load from the start.")] = False,
    locust_ui: Annotated[
        bool,
        typer.Option(
            "--locust-ui", help="Open Locust's own web page for the clients of each zone, on loopback of their machine."
        ),
    ] = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where result folders go.")] = Path("runs"),
    seed: Seed = None,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    address: Address = None,
    machines: Machines = 1,
    on: On = None,
    hosting: Annotated[
        Literal["actor", "node"] | None, typer.Option("--hosting", help="As for run: where pods' supervisors live.")
    ] = None,
    watch: Watched = False,
) -> None:
    """Bring the cluster up and keep it: break, heal and change it by hand, with load as you like, until `down`.

    No fault comes by itself. What happens is recorded, and reported at the end as that of a run.
    """
    only = only_on(address, machines, on)
    interrupts = Interrupts()
    interrupts.install()
    try:
        scenario = load(file, overrides, seed, programs_here=address is None)
        dry_run(file, scenario)
        name = name or scenario.name
        if re.fullmatch(DNS_LABEL, name) is None:
            fail(f"--name {name}: must be lower-case letters, digits and `-`, at most 63", EXIT_BAD_INPUT)
        if detach:
            _detached(name, sys.argv[1:])
        warn(scenario)
        _up(
            scenario,
            name,
            out,
            address,
            machines,
            only,
            hosting,
            interrupts,
            with_load=with_load,
            pages=locust_ui,
            watch=watch,
        )
    except KeyboardInterrupt:
        fail("interrupted", EXIT_INTERRUPTED)


def _up(
    scenario: Scenario,
    name: str,
    out: Path,
    address: str | None,
    machines: int,
    only: list[str],
    hosting: Literal["actor", "node"] | None,
    interrupts: Interrupts,
    *,
    with_load: bool,
    pages: bool,
    watch: bool,
) -> NoReturn:
    run_dir = new_run_dir(out, name)
    try:
        with registry.registered(name, run_dir, scenario.name):
            start_here(address)
            # Imported late, as for `run`.
            from testbed.cli.showing import showing
            from testbed.emulation.driver.up import up as carry_out
            from testbed.results.judge.verdict import EXIT_CODES
            from testbed.results.show.report import show

            terminal, socket = console(), registry.socket_of(name)
            with (
                failures_told(run_dir, scenario, on_this_machine=address is None),
                showing(scenario, run_dir, terminal, watch=watch, by_hand=True) as shown,
            ):
                summary = carry_out(
                    scenario,
                    run_dir,
                    socket,
                    shown.hear,
                    interrupts,
                    address,
                    machines,
                    hosting,
                    only,
                    load=with_load,
                    pages=pages,
                )
                shown.ended(summary)
            show(summary, run_dir, terminal)
            forget_output(name)
    except NameTaken:
        run_dir.rmdir()
        _fail_taken(name)
    except RegistryUnsafe as unsafe:
        run_dir.rmdir()
        fail(str(unsafe), EXIT_BAD_INPUT)
    raise typer.Exit(EXIT_CODES[summary.verdict])


def _fail_taken(name: str) -> NoReturn:
    fail(f"a cluster {name} is up already; `testbed down {name}`, or choose another --name", EXIT_BAD_INPUT)


def forget_output(name: str) -> None:
    """Remove the log of a detached cluster if it is this process's own, and not that of an earlier one that failed."""
    log = registry.log_of(name)
    with contextlib.suppress(OSError):
        if os.path.samestat(log.stat(), os.fstat(sys.stdout.fileno())):
            log.unlink()


def _detached(name: str, arguments: list[str]) -> NoReturn:
    """The same command in a session of its own; what it prints is shown until it is up."""
    try:
        log = registry.log_of(name)
        # Until this one has its name, or else another could take its log for that of one that is gone.
        with registry.one_at_a_time():
            if any(cluster.name == name for cluster in clusters()):
                _fail_taken(name)
            child = _started(log, arguments)
            while child.poll() is None and not _has_its_name(name, child.pid):
                time.sleep(POLL_S)
    except RegistryUnsafe as unsafe:
        fail(str(unsafe), EXIT_BAD_INPUT)
    with log.open("rb") as said:
        while not _is_up(name, child.pid):
            sys.stdout.buffer.write(said.read())
            sys.stdout.flush()
            if child.poll() is not None:
                sys.stdout.buffer.write(said.read())
                sys.stdout.flush()
                fail(f"{name} did not come up; what it said is in {log}", child.returncode)
            time.sleep(POLL_S)
        sys.stdout.buffer.write(said.read())
    print(f"{name} is up; `testbed status {name}` shows it, `testbed down {name}` ends it")
    raise typer.Exit


def _started(log: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from testbed.cli import main; main()"]
    command += [argument for argument in arguments if argument not in ("--detach", "-d")]
    with log.open("wb") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)


def _has_its_name(name: str, pid: int) -> bool:
    cluster = registry.found().get(name)
    return cluster is not None and cluster[0].pid == pid


def _is_up(name: str, pid: int) -> bool:
    if not _has_its_name(name, pid):
        return False
    try:
        return "up_s" in ask(registry.socket_of(name), "status")
    except (Declined, Unreachable):
        return False


def down(name: ClusterName = None) -> None:
    """Take a cluster down, and wait until what happened is written down."""
    cluster = meant(name)
    answer = asked(cluster, "down")
    while (still := registry.found().get(cluster.name)) is not None and still[0].pid == cluster.pid:
        time.sleep(POLL_S)
    if answer["run_dir"] is None:
        print(f"{cluster.name} is given up: it was not up yet")
        return
    print(f"{cluster.name} is down: {answer['verdict'].upper()}; results in {answer['run_dir']}")
    for reason in answer["why"]:
        print(f"  {reason}")
