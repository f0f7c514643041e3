"""Runs the benchmarks, all or those that are named, and prints one table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table

from benchmarks import (
    bring_up,
    cells,
    density,
    link_latency,
    live_page,
    push,
    report,
    store,
    throughput,
    wake_up,
    zone_crash,
)
from benchmarks.row import Row

BENCHMARKS: dict[str, Callable[[], Iterator[Row]]] = {
    "throughput": throughput.measure,
    "cells": cells.measure,
    "bring-up": bring_up.measure,
    "density": density.measure,
    "zone-crash": zone_crash.measure,
    "link-latency": link_latency.measure,
    "live-page": live_page.measure,
    "wake-up": wake_up.measure,
    "push": push.measure,
    "report": report.measure,
    "store": store.measure,
}


def main() -> None:
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    table = Table("benchmark", "measured", "against", "ratio or error", "bound")
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr)
        for row in BENCHMARKS[name]():
            table.add_row(row.benchmark, row.measured, row.against, row.result, row.bound)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
