from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from testbed.results.tables import writer as writer_module
from testbed.results.tables.schemas import SCHEMAS
from testbed.results.tables.writer import TableWriter, read_table

_EVENT = {"t_s": 1.0, "source": "control-plane", "kind": "Node", "object": "n1", "reason": "NodeReady", "details": "{}"}


def test_rows_of_all_writers_are_read_together_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, t_s in (("b", 2.0), ("a", 1.0)):
        with TableWriter(tmp_path, "events", name) as events:
            events.append({**_EVENT, "t_s": t_s, "source": name})
            events.write(pa.table({**{key: [value] for key, value in _EVENT.items()}, "t_s": [t_s + 10]}))
    table = read_table(tmp_path, "events")
    assert table.schema == SCHEMAS["events"]
    assert sorted(table["t_s"].to_pylist()[:2]) == [1.0, 11.0]
    assert table.num_rows == 4


@pytest.mark.parametrize("table", sorted(SCHEMAS))
def test_a_table_that_nobody_wrote_is_empty_and_has_its_schema(tmp_path: Path, table: str) -> None:
    assert read_table(tmp_path, table).schema == SCHEMAS[table]


def test_only_closed_files_are_read_and_an_exception_closes(tmp_path: Path) -> None:
    open_events = TableWriter(tmp_path, "events", "crashed")
    open_events.append(_EVENT)
    with suppress(KeyboardInterrupt), TableWriter(tmp_path, "events", "stopped") as events:
        events.append(_EVENT)
        raise KeyboardInterrupt
    assert read_table(tmp_path, "events").num_rows == 1
    open_events.close()
    assert read_table(tmp_path, "events").num_rows == 2


def test_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "ROW_GROUP_ROWS", 10)
    with TableWriter(tmp_path, "events", "a") as events:
        for _ in range(35):
            events.append(_EVENT)
    metadata = pq.read_metadata(events.path)
    sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert sizes == [10, 10, 10, 5]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_writer_never_overwrites_its_file(tmp_path: Path) -> None:
    TableWriter(tmp_path, "events", "a").close()
    with pytest.raises(FileExistsError, match="name of its own"):
        TableWriter(tmp_path, "events", "a")


def test_a_column_that_the_table_has_not_is_refused(tmp_path: Path) -> None:
    with TableWriter(tmp_path, "events", "a") as events, pytest.raises(AssertionError, match="time_s"):
        events.append({"time_s": 1.0})
