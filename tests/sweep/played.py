"""Stands in for `testbed run`: leaves at once what a run would leave, as the file `play.json` says.

It has for each variant's rate, and each seed, how the tries end: a verdict, `hang` (until a signal, then interrupted),
`crash` (killed), `no room` (nothing is left but a message).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import orjson
import yaml

from tests.results.made_runs import made


def main() -> None:
    _, scenario, _, seed, *_, out = sys.argv[1:]
    spec = yaml.safe_load(Path(scenario).read_text())["spec"]
    rate = spec["load"]["sources"][0]["rate"]
    play = orjson.loads(Path(os.environ["PLAY"]).read_bytes())
    tries = play.get(f"{rate} {seed}", ["passed"])
    before = [each for each in Path(out).iterdir() if each.is_dir()]
    with Path(os.environ["PLAY"] + ".played").open("a") as played:
        played.write(f"{rate} {seed}\n")
    how = tries[min(len(before), len(tries) - 1)]
    if how == "no room":
        print("no address is free", file=sys.stderr)
        sys.exit(3)
    run_dir = Path(out, f"small-{len(before)}")
    if how == "crash":
        run_dir.mkdir()
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
        Path(os.environ["PLAY"] + ".hangs").touch()
        time.sleep(120)
    made(run_dir, int(seed), 2.0 + 0.01 * int(seed) + (1.0 if rate == "20/s" else 0.0), verdict=how)
    shutil.copy(scenario, run_dir / "scenario.yaml")
    sys.exit({"passed": 0, "failed": 1, "invalid": 3}[how])


if __name__ == "__main__":
    main()
