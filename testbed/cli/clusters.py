"""What commands to a cluster that is up have in common: which one is meant, how it is asked, and files read for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from testbed.cli.terminal import EXIT_BAD_INPUT, EXIT_INVALID, fail
from testbed.documents.source import MAX_BYTES
from testbed.emulation.driver import registry
from testbed.emulation.driver.channel import Declined, Unreachable, ask
from testbed.emulation.driver.registry import Registered, RegistryUnsafe

STDIN = "-"
ClusterName = Annotated[str | None, typer.Argument(metavar="[NAME]", help="The cluster. Default: the only one.")]


def clusters() -> list[Registered]:
    """Those that are there; of those that are not any more, a line is said."""
    try:
        found = registry.found()
    except RegistryUnsafe as unsafe:
        fail(str(unsafe), EXIT_BAD_INPUT)
    for cluster, state in found.values():
        if state == "gone":
            print(
                f"{cluster.name} is gone: its process ({cluster.pid}) ended without taking it down, and nothing of it "
                f"runs any more; what it had written: {cluster.run_dir}",
                file=sys.stderr,
            )
    return [cluster for cluster, state in found.values() if state == "there"]


def meant(name: str | None) -> Registered:
    """The cluster of that name, or the only one."""
    there = clusters()
    names = ", ".join(cluster.name for cluster in there)
    if not there:
        fail("no cluster is up; `testbed up FILE` brings one up", EXIT_BAD_INPUT)
    if name is None and len(there) > 1:
        fail(f"several clusters are up: say which one, {names}", EXIT_BAD_INPUT)
    chosen = next((cluster for cluster in there if name in (None, cluster.name)), None)
    if chosen is None:
        fail(f"no cluster {name!r} is up; there is {names}", EXIT_BAD_INPUT)
    return chosen


def asked(cluster: Registered, command: str, **arguments: Any) -> dict[str, Any]:
    """The answer, or the end with what was wrong."""
    try:
        return ask(registry.socket_of(cluster.name), command, **arguments)
    except Declined as declined:
        fail(str(declined), EXIT_BAD_INPUT)
    except Unreachable as error:
        fail(f"{cluster.name} cannot be asked: {error}; it starts or ends just now", EXIT_INVALID)


def name_and(arguments: Sequence[str], what: str) -> tuple[str | None, str]:
    """`[NAME] WHAT`, of which typer makes a list."""
    if len(arguments) > 2:
        fail(f"too many arguments: `[NAME] {what}` is wanted, not {' '.join(arguments)}", EXIT_BAD_INPUT)
    return (arguments[0] if len(arguments) == 2 else None), arguments[-1]


def text_of(file: str) -> tuple[str, str]:
    """Its name for people, and what is in it; `-` is standard input."""
    name = "<stdin>" if file == STDIN else file
    try:
        content = sys.stdin.buffer.read(MAX_BYTES + 1) if file == STDIN else _head_of(Path(file))
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        fail(f"{name}:1:1: cannot be read: {reason}", EXIT_BAD_INPUT)
    if len(content) > MAX_BYTES:
        fail(f"{name}:1:1: is larger than {MAX_BYTES} bytes", EXIT_BAD_INPUT)
    return name, text


def _head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
