"""Parquet files of a run: `<run>/<table>/<writer>.parquet`, one file for each writer of each table.

Owns files and row groups. A file appears under its name only once it is whole, so a crash loses open files and
never leaves half a one. Schemas are `tables`'.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from testbed.results.tables.damage import BadRunFolder
from testbed.results.tables.schemas import LATER_COLUMNS, SCHEMAS

ROW_GROUP_ROWS = 1 << 16
_FILES = "*.parquet"


class TableWriter:
    """Writes one file of one table in row groups of at most `ROW_GROUP_ROWS` rows; a context manager.

    Leaving the context keeps what was written, also when an exception (Ctrl-C) is the reason. Raises FileExistsError
    if this writer has already written its file of this table in this run.
    """

    def __init__(self, run_dir: Path, table: str, writer: str) -> None:
        self._schema = SCHEMAS[table]
        self._columns = frozenset(self._schema.names)
        self.path = run_dir / table / f"{writer}.parquet"
        if self.path.exists():
            raise FileExistsError(f"{self.path} is already written: a writer needs a name of its own for each file")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._open_path = self.path.with_name(f"{self.path.name}.tmp")
        names = [field.name for field in self._schema if pa.types.is_dictionary(field.type)]
        self._file = pq.ParquetWriter(self._open_path, self._schema, compression="zstd", use_dictionary=names)
        self._rows: list[Mapping[str, Any]] = []
        self._tables: list[Any] = []
        self._pending_rows = 0
        self._closed = False

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; columns that it does not name are null."""
        assert row.keys() <= self._columns, f"{self.path.parent.name} has no {sorted(row.keys() - self._columns)}"
        self._rows.append(row)
        if len(self._rows) >= ROW_GROUP_ROWS:
            self._flush()

    def write(self, rows: pa.Table) -> None:
        """Add many rows. They have at least the columns of the schema, in any type that can be cast to its."""
        table = rows.select(self._schema.names).cast(self._schema)
        self._tables.append(table)
        self._pending_rows += table.num_rows
        if self._pending_rows >= ROW_GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Complete the file and give it its name. Closing twice does nothing.

        Raises OSError if the disk has no room for it; then nothing is left of it.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._flush()
            self._file.close()
            self._open_path.rename(self.path)
        except OSError:
            self._file.is_open = False
            with contextlib.suppress(OSError):
                self._file.file_handle.close()
            self._open_path.unlink(missing_ok=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _flush(self) -> None:
        if self._rows:
            self._tables.append(pa.Table.from_pylist(self._rows, schema=self._schema))
        if self._tables:
            self._file.write_table(pa.concat_tables(self._tables), row_group_size=ROW_GROUP_ROWS)
        self._rows, self._tables, self._pending_rows = [], [], 0


def write_missing_tables(run_dir: Path) -> None:
    """Every table that nobody wrote, without rows: what is missing after that has been lost."""
    for table in SCHEMAS:
        if not any((run_dir / table).glob(_FILES)):
            TableWriter(run_dir, table, "nobody").close()


def read_table(run_dir: Path, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows that any writer completed, in the order of the writers' names; an empty table if there are none.

    Of `LATER_COLUMNS` those that a file has not are null. Raises BadRunFolder for a file that is not, or not wholly,
    one of this table.
    """
    schema = SCHEMAS[table]
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    parts = []
    for file in sorted((run_dir / table).glob(_FILES)):
        with _opened(file, table, schema.names) as (parquet, left_out):
            rows = parquet.read(columns=schema.names)
            for name in left_out:
                rows = rows.append_column(schema.field(name), pa.nulls(rows.num_rows, schema.field(name).type))
            parts.append(rows.select(schema.names).cast(schema))
    return pa.concat_tables([schema.empty_table(), *parts])


def check_files(run_dir: Path, table: str) -> tuple[str, ...]:
    """The columns that an earlier version left out. Rows are not read.

    Raises BadRunFolder for a table without any file, or with files that are none of it, a line for each.
    """
    folder = run_dir / table
    if not folder.is_dir():
        raise BadRunFolder(f"{folder}: {'should be a folder' if folder.exists() else 'this table is missing'}")
    files = sorted(folder.glob(_FILES))
    if not files:
        raise BadRunFolder(f"{folder}: this table is missing, the folder has none of its files")
    problems: list[str] = []
    missing: set[str] = set()
    for file in files:
        try:
            with _opened(file, table, SCHEMAS[table].names) as (_, left_out):
                missing.update(left_out)
        except BadRunFolder as error:
            problems += error.problems
    if problems:
        raise BadRunFolder(*problems)
    return tuple(name for name in SCHEMAS[table].names if name in missing)


@contextmanager
def _opened(file: Path, table: str, columns: Sequence[str]) -> Iterator[tuple[pq.ParquetFile, list[str]]]:
    """A file of the table, and which of these columns it has not, as it is of an earlier version.

    BadRunFolder also for what is found wrong while it is read.
    """
    try:
        # Arrow would not say what keeps a file from being opened.
        with file.open("rb"), pq.ParquetFile(file) as parquet:
            left_out = []
            for field in map(SCHEMAS[table].field, columns):
                index = parquet.schema_arrow.get_field_index(field.name)
                if index < 0 and field.name in LATER_COLUMNS.get(table, ()):
                    left_out.append(field.name)
                    continue
                if index < 0:
                    raise BadRunFolder(f"{file}: is of another table: it has no column {field.name}")
                found = parquet.schema_arrow.field(index).type
                if _kind(found) != _kind(field.type):
                    should_be = f"{field.name} is {_kind(found)}, and should be {_kind(field.type)}"
                    raise BadRunFolder(f"{file}: is of another table: {should_be}")
            yield parquet, left_out
    except (OSError, pa.ArrowException) as error:
        # Arrow raises its own errors of reading as OSError, without a number.
        why = error.strerror if isinstance(error, OSError) and error.errno is not None else None
        what = "is no Parquet file, or only a part of one" if why is None else f"cannot be read: {why}"
        raise BadRunFolder(f"{file}: {what}") from error


def _kind(type_: pa.DataType) -> str:
    """What values a column has, however wide or encoded."""
    if pa.types.is_dictionary(type_):
        return _kind(type_.value_type)
    if pa.types.is_list(type_):
        return f"lists of {_kind(type_.value_type)}"
    if pa.types.is_integer(type_):
        return "whole numbers"
    if pa.types.is_floating(type_):
        return "numbers"
    return "text" if pa.types.is_string(type_) or pa.types.is_large_string(type_) else str(type_)
