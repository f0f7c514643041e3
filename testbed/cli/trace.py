"""`testbed trace`: one request's way, call by call and try by try."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from testbed.cli.completion import complete_run
from testbed.cli.terminal import EXIT_BAD_INPUT, console, fail

_NUMBER = 10


def trace(
    run_dir: Annotated[Path, typer.Argument(metavar="DIR", help="A result folder.", autocompletion=complete_run)],
    request_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[REQUEST_ID]...", help="As in the tables, or its beginning.")
    ] = None,
    slowest: Annotated[
        int | None, typer.Option("--slowest", min=1, metavar="N", help="The slowest ones instead.")
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help=f"Only those that were not ok; the first {_NUMBER}, or the slowest.")
    ] = False,
    config: Annotated[
        bool,
        typer.Option("--config", help="With the routes, clusters and endpoints that the callers' proxies went by."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="As JSON, on standard output; with what --config shows.")
    ] = False,
) -> None:
    """Show the way of requests: calls, failed tries, why, and what the proxies had been told then."""
    if bool(request_ids) == (slowest is not None or failed):
        fail("name requests, or choose some by --slowest N, --failed or both", EXIT_BAD_INPUT)
    from testbed.results.measure.trace import Requests
    from testbed.results.show.trace_lines import render
    from testbed.results.tables.damage import BadRunFolder
    from testbed.results.tables.folder import check_run_folder

    try:
        check_run_folder(run_dir)
        requests = Requests(run_dir)
        if request_ids:
            chosen = requests.known(request_ids)
            if len(chosen) < len(request_ids):
                unknown = [each for each in request_ids if not any(known.startswith(each) for known in chosen)]
                fail(f"{run_dir}: no request, or more than one, begins with {', '.join(unknown)}", EXIT_BAD_INPUT)
        else:
            chosen = requests.chosen(slowest or _NUMBER, slowest=slowest is not None, failed=failed)
        traces = requests.traces(chosen)
    except BadRunFolder as error:
        fail("\n".join(error.problems), EXIT_BAD_INPUT)
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(traces, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        return
    out = console()
    for number, each in enumerate(traces):
        if number:
            out.print()
        for line in render(each, out.width, with_config=config):
            out.print(line, soft_wrap=True)
