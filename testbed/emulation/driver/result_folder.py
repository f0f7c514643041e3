"""What a session leaves: tables, facts, summary and page, and the traceback of what should not have happened."""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path

from testbed.emulation.driver.cluster import ClusterRecords
from testbed.emulation.driver.course import Course
from testbed.emulation.driver.disk import RunDisk
from testbed.emulation.driver.recording import record
from testbed.emulation.driver.session import Session
from testbed.objects.places import Topology
from testbed.results.show.summarize import summarize
from testbed.results.show.summary import Summary
from testbed.results.tables.facts import UnreadLines

_DEFECTS = "testbed.log"


def complete(
    run_dir: Path,
    disk: RunDisk,
    session: Session,
    course: Course,
    topology: Topology,
    t0_s: float,
    records: ClusterRecords,
) -> Summary:
    """Everything written down, of a session that is down. Times in it count from `t0_s`, monotonic seconds.

    Raises DiskFull.
    """
    fleet = session.fleet
    unread: tuple[UnreadLines, ...] = ()
    with session.surviving("writing the tables"):
        written = record(
            run_dir,
            fleet.driver.table_clock(t0_s),
            lambda place: fleet.of(place).table_clock(t0_s),
            topology,
            records,
            fleet.samples(),
            session.cell_map,
        )
        unread = written.unread
        if written.lost:
            session.break_off(f"{disk.name} is full; lost: {', '.join(written.lost)}")
    with disk.blamed("the facts and the summary of the run, which take the report with them"):
        course.facts(fleet.facts(t0_s), unread).save(run_dir)
        return summarize(run_dir)


def write_defect(run_dir: Path, defect: Exception) -> Path:
    """Keep the traceback of what should not have happened, as far as there is room; returns where."""
    log = run_dir / "logs" / _DEFECTS
    with contextlib.suppress(OSError):
        log.parent.mkdir(exist_ok=True)
        with log.open("a") as file:
            traceback.print_exception(defect, file=file)
    return log
