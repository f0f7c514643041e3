"""`testbed lab ...`: arguments, exit codes and how a lab is shown. Exit code 2 for what cannot be done as asked."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.table import Table

from testbed.machines.lab.lifecycle import ask, make_lab, remove_lab
from testbed.machines.lab.login import LAB_VARIABLE
from testbed.machines.lab.plan import DEFAULT_NAME, DEFAULT_SUBNET, DEFAULT_ZONES, LabError, LabPlan, state_dir
from testbed.machines.lab.state import load_state

EXIT_BAD_INPUT = 2
COLUMNS = 100

lab = typer.Typer(
    help="Machines out of nothing, to try a Ray cluster of several on one Linux host (root).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

MachineName = Annotated[str, typer.Argument(metavar="M", help="A machine, by name or address, such as m2.")]
OtherMachines = Annotated[list[str], typer.Argument(metavar="M2...", help="One or more other machines.")]


@lab.command()
def up(
    machines: Annotated[int, typer.Option("--machines", help="How many, the head m1 included.")] = 4,
    zones: Annotated[str, typer.Option("--zones", help="Of m2 and on, in turn.")] = ",".join(DEFAULT_ZONES),
    subnet: Annotated[str, typer.Option("--subnet", hidden=True)] = DEFAULT_SUBNET,
) -> None:
    """Make the machines; `ray up -y cluster.yaml` makes them a Ray cluster."""
    try:
        plan = LabPlan(machines, tuple(zone.strip() for zone in zones.split(",")), _name(), subnet)
        if not make_lab(plan, Path.home()):
            print("this lab is up already")
        _show(ask(plan.name, "status")["machines"])
    except LabError as error:
        _fail(error)


@lab.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="As JSON, on standard output.")] = False) -> None:
    """Show the machines: address, zone, whether they are up, and from whom they are cut off."""
    answer = _ask("status")
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(answer["machines"], option=orjson.OPT_INDENT_2) + b"\n")
    else:
        _show(answer["machines"])


@lab.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def exec(machine: MachineName, command: Annotated[list[str], typer.Argument(metavar="-- CMD...")]) -> None:
    """Run a command on a machine, in its home; its exit code is ours."""
    if command[0] == "--":
        del command[0]
    states = _ask("status", machine)["machines"]
    state = next(state for state in states if machine in (state["name"], state["address"]))
    # Machines do not see it. They count processes otherwise than the host does, whose count `pid` is.
    if load_state(state_dir(_name())) is None:
        _fail(LabError(f"only the lab's host can do that: use ssh {state['address']}"))
    pid = state["pid"]
    if pid is None:
        _fail(LabError(f"{machine} is off: `testbed lab start {machine}` first"))
    user = pwd.getpwuid(0)
    environment = {
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": user.pw_shell,
        "PATH": f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM": os.environ.get("TERM", "dumb"),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        LAB_VARIABLE: _name(),
        "RAY_AUTH_MODE": "token",
    }
    enter = ["nsenter", "--all", f"--target={pid}", f"--wdns={user.pw_dir}", "--"]
    os.execvpe("nsenter", [*enter, *command], environment)


@lab.command()
def kill(machine: MachineName) -> None:
    """Power a machine off: no goodbye, only silence."""
    _ask("kill", machine)


@lab.command()
def start(machine: MachineName) -> None:
    """Power a machine on again, with its address and its home."""
    _ask("start", machine)


@lab.command()
def cut(machine: MachineName, others: OtherMachines) -> None:
    """Lose all packets between a machine and others, in both directions."""
    _ask("cut", machine, *others)


@lab.command()
def heal(machine: MachineName, others: OtherMachines) -> None:
    """Undo a cut."""
    _ask("heal", machine, *others)


@lab.command()
def down() -> None:
    """Remove the lab, or what is left of one that crashed."""
    try:
        removed = remove_lab(_name())
    except LabError as error:
        _fail(error)
    if not removed:
        print("no lab is up")


def _name() -> str:
    return os.environ.get(LAB_VARIABLE, DEFAULT_NAME)


def _ask(command: str, *machines: str) -> dict[str, Any]:
    try:
        return ask(_name(), command, machines)
    except LabError as error:
        _fail(error)


def _show(machines: list[dict[str, Any]]) -> None:
    table = Table("machine", "address", "zone", "state", "clock", box=None)
    for machine in machines:
        cut = f", cut from {' '.join(machine['cut_from'])}" if machine["cut_from"] else ""
        table.add_row(
            machine["name"],
            machine["address"],
            machine["zone"] or "-",
            machine["state"] + cut,
            f"+{machine['clock_offset_s']} s",
        )
    Console(highlight=False, width=None if sys.stdout.isatty() else COLUMNS).print(table)


def _fail(error: LabError) -> NoReturn:
    print(error, file=sys.stderr)
    raise typer.Exit(EXIT_BAD_INPUT)
