"""Whether a folder is that of a finished run, with all that a report of it needs, in a form that can be read."""

from __future__ import annotations

from pathlib import Path

from testbed.results.tables.damage import BadRunFolder
from testbed.results.tables.facts import RunFacts
from testbed.results.tables.schemas import LATER_TABLES, SCHEMAS
from testbed.results.tables.writer import check_files


def check_run_folder(run_dir: Path) -> tuple[str, ...]:
    """What an earlier version of testbed has not recorded, in a line for each table: a report does without.

    A table that is missing as a whole is never taken for an empty one: every run writes all of them. Raises
    BadRunFolder with everything that is wrong.
    """
    if not run_dir.is_dir():
        what = "is a file, not the folder of a run" if run_dir.exists() else "there is no such folder"
        raise BadRunFolder(f"{run_dir}: {what}")
    RunFacts.load(run_dir)
    problems: list[str] = []
    left_out: list[str] = []
    for table in SCHEMAS:
        if table in LATER_TABLES and not (run_dir / table).exists():
            left_out.append(f"{run_dir / table}: an earlier version recorded the run, without this table")
            continue
        try:
            if missing := check_files(run_dir, table):
                left_out.append(f"{run_dir / table}: an earlier version wrote it, without {', '.join(missing)}")
        except BadRunFolder as error:
            problems += error.problems
    if problems:
        raise BadRunFolder(*problems)
    return tuple(left_out)
