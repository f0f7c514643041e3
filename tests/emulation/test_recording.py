"""From raw logs to tables: what could not be read is not forgotten."""

from __future__ import annotations

from pathlib import Path

from testbed.emulation.driver.cluster import ClusterRecords
from testbed.emulation.driver.recording import record
from testbed.objects.places import Topology
from testbed.results.tables.facts import UnreadLines
from testbed.results.tables.schemas import Clock
from testbed.results.tables.writer import read_table

SENT = '{"e":"s","id":"1","m":"GET","u":"/","n":"/","p":null,"i":1.0,"s":1.0,"z":"a","b":0}'
FINISHED = '{"e":"f","id":"%s","f":1.1,"c":200,"o":"ok","m":null,"b":0,"r":0}'


def test_lines_that_are_in_no_table_are_counted_log_by_log(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "a.requests.jsonl").write_text(f"{SENT}\n{FINISHED % 1}\n{FINISHED % 2}\n{SENT[:20]}")
    (logs / "b.requests.jsonl").write_text(f"{SENT}\n")
    (logs / "gone-1.access.jsonl").write_text("{}\n{}\n")
    clock = Clock(0.0, 0.0)
    written = record(tmp_path, clock, lambda _: clock, Topology(()), ClusterRecords([], [], [], ()), [])
    assert written.unread == (UnreadLines("a.requests.jsonl", 1, 1), UnreadLines("gone-1.access.jsonl", unknown=2))
    assert read_table(tmp_path, "requests").num_rows == 2
