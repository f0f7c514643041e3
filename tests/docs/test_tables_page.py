"""docs/tables.md has every column of every table with its type, and its programs run and tell the truth."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from testbed.results.show.summarize import summarize
from testbed.results.tables.schemas import SCHEMAS
from tests.results.conftest import write_run

PAGE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run")


def rows(section: str) -> list[list[str]]:
    """The rows of the table of columns, which is the first of its section."""
    table = re.search(r"^\| column \|.*?\n\n", section, re.DOTALL | re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[0].strip().splitlines()[2:]]


def type_of(column: pa.DataType) -> str:
    return str(column.value_type if pa.types.is_dictionary(column) else column)


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_column_is_described_with_its_type(table: str) -> None:
    described = {name: row[1] for row in rows(SECTIONS[table]) for name in re.findall(r"`(\w+)`", row[0])}
    assert described == {field.name: type_of(field.type) for field in SCHEMAS[table]}


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_description_has_a_unit_where_the_name_has_one_a_meaning_and_says_when_it_is_null(table: str) -> None:
    for name, _, unit, meaning, null in rows(SECTIONS[table]):
        suffix = re.search(r"_(s|ms|bytes|percent)`$", name)
        if suffix is not None:
            assert unit == {"s": "s", "ms": "ms", "bytes": "B", "percent": "%"}[suffix[1]], name
        assert meaning, name
        assert null, name


def program(heading: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the program under that heading prints about the run."""
    (source,) = re.findall(r"^```python\n(.*?)^```$", SECTIONS[heading], re.DOTALL | re.MULTILINE)
    monkeypatch.setattr(sys, "argv", ["program", str(run_dir)])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "docs/tables.md", "exec"), {})
    return printed.getvalue()


def test_the_query_counts_requests_in_the_phases_in_which_the_report_does(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = summarize(run_dir)
    shown: list[duckdb.DuckDBPyRelation] = []
    monkeypatch.setattr(duckdb.DuckDBPyRelation, "show", lambda relation: shown.append(relation))
    program("With DuckDB", run_dir, monkeypatch)
    counted = {name: (sent, ok, p99_ms) for name, sent, ok, p99_ms in shown[0].fetchall()}
    assert counted == {
        phase.name: (phase.sent, phase.ok, pytest.approx(phase.latency_ms["p99"], abs=0.05)) for phase in summary.phases
    }
    assert counted["during lose-east-a"][0] > counted["during lose-east-a"][1]


def test_the_pyarrow_program_counts_calls_as_the_report_does(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = summarize(run_dir).call_matrix_by_phase
    calls = sum(count for name in ("warmup", "all") for row in matrix[name].values() for count in row.values())
    printed = program("With pyarrow", run_dir, monkeypatch).splitlines()
    assert sum(int(line.split()[-1]) for line in printed) == calls
    assert printed[0].startswith("east-")
