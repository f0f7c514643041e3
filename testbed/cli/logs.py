"""`testbed logs`: what a pod of a cluster that is up has printed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from testbed.cli.clusters import asked, meant, name_and
from testbed.cli.terminal import EXIT_BAD_INPUT, fail
from testbed.emulation.driver import registry
from testbed.emulation.driver.interrupts import EXIT_INTERRUPTED

POLL_S = 0.2


def logs(
    arguments: Annotated[list[str], typer.Argument(metavar="[NAME] POD", help="A pod, as `testbed status` names it.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
) -> None:
    """Print what a pod's container and proxy have printed."""
    name, pod = name_and(arguments, "POD")
    cluster = meant(name)
    pods = [each["name"] for each in asked(cluster, "status").get("pods", [])]
    folder = Path(cluster.run_dir) / "logs"
    read = {folder / f"{pod}.{suffix}": 0 for suffix in ("log", "envoy.log")}
    if pod not in pods and not any(path.exists() for path in read):
        fail(f"there is no pod {pod!r}; there are {', '.join(pods) or 'none yet'}", EXIT_BAD_INPUT)
    try:
        while True:
            # Of a pod that has just started there may be none yet, least of all of one on another machine.
            for path in filter(Path.exists, read):
                read[path] += _copy(path, read[path])
            if not follow or cluster.name not in registry.found():
                return
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _copy(path: Path, offset: int) -> int:
    """Print whole lines from there on, of a file that may still grow; returns their length."""
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    sys.stdout.buffer.write(whole)
    sys.stdout.buffer.flush()
    return len(whole)
