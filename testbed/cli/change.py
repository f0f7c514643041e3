"""`testbed inject`, `heal`, `apply` and `load`: what a person does to a cluster that is up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from testbed.cli.clusters import STDIN, asked, meant, name_and, text_of
from testbed.cli.scenarios import Overrides
from testbed.cli.terminal import EXIT_BAD_INPUT, fail


def inject(
    arguments: Annotated[
        list[str], typer.Argument(metavar="[NAME] FILE", help="A fault or a list of them; - for standard input.")
    ],
) -> None:
    """Break something in a cluster that is up: now, or `at` a time from now, until it is healed or `for` a time."""
    name, file = name_and(arguments, "FILE")
    cluster = meant(name)
    shown, text = text_of(file)
    for fault in asked(cluster, "inject", file=shown, text=text)["faults"]:
        when = f"comes in {fault['in_s']:g} s" if fault["hit"] is None else f"hit {fault['hit']}"
        until = "" if fault["for_s"] is None else f", for {fault['for_s']:g} s"
        print(f"{fault['name']}: {when}{until}")


def heal(
    arguments: Annotated[list[str], typer.Argument(metavar="[NAME] FAULT", help="The name of a fault in force.")],
) -> None:
    """Undo a fault."""
    name, fault = name_and(arguments, "FAULT")
    answer = asked(meant(name), "heal", fault=fault)
    print(f"{fault}: healed after {answer['lasted_s']:.2f} s")


def apply(
    arguments: Annotated[
        list[str], typer.Argument(metavar="[NAME] FILE", help="The scenario in another version; - for standard input.")
    ],
    overrides: Overrides = [],  # noqa: B006 - typer copies it
) -> None:
    """Change services, replicas, routes and policies of a cluster that is up to what a scenario file says."""
    name, file = name_and(arguments, "FILE")
    cluster = meant(name)
    shown, text = text_of(file)
    folder = Path.cwd() if file == STDIN else Path(file).resolve().parent
    answer = asked(cluster, "apply", file=shown, text=text, folder=str(folder), overrides=overrides)
    for line in answer["warnings"]:
        print(line, file=sys.stderr)
    for line in _changes(answer):
        print(line)


def _changes(answer: dict[str, Any]) -> list[str]:
    if answer["change"] is None:
        return ["nothing differs"]
    lines = [f"{each} applied" for each in answer["applied"]] + [f"{each} deleted" for each in answer["deleted"]]
    end = "all is as declared" if answer["settled"] else f"not all is as declared yet: {answer['why']}"
    return [*lines, f"{answer['change']}: {end}"]


def load(
    arguments: Annotated[list[str], typer.Argument(metavar="[NAME] start|stop", help="What to do.")],
) -> None:
    """Start or stop the load that the scenario of a cluster declares."""
    name, do = name_and(arguments, "start|stop")
    if do not in ("start", "stop"):
        fail(f"load can be told to start or stop, not {do!r}", EXIT_BAD_INPUT)
    asked(meant(name), "load", do=do)
    print("load has started" if do == "start" else "load has stopped")
