"""The page of a comparison of made-up runs."""

from __future__ import annotations

from pathlib import Path

import orjson

from testbed.results.compare.comparison import compare
from testbed.results.compare.files import write
from testbed.results.compare.runs import read_run
from tests.results.made_runs import made


def compared(folder: Path) -> Path:
    """The page of three variants with five seeds each: A is best by a second, B needs more runs to tell from C, which
    once never recovers, and one run is invalid with markup in its reason."""
    runs = []
    for seed in range(1, 6):
        runs.append(made(folder / f"a{seed}", seed, 2.2 + seed / 50))
        runs.append(made(folder / f"b{seed}", seed, 3.2 - seed / 10, retries=2))
        runs.append(made(folder / f"c{seed}", seed, None if seed == 5 else 2.9 + seed / 10, retries=3))
    bad = made(folder / "bad", 6, 99.0, verdict="invalid")
    summary = orjson.loads((bad / "summary.json").read_bytes())
    evil = "<img src=x onerror=alert(1)><b class=evil>"
    (bad / "summary.json").write_bytes(orjson.dumps({**summary, "invalid_reasons": [evil]}))
    write(compare([read_run(run) for run in (*runs, bad)]), folder / "out")
    return folder / "out" / "comparison.html"
