"""`testbed report` on what is not, or not wholly, the folder of a finished run: exit 2, and a line of what is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from testbed.cli import app
from testbed.results.tables.facts import FORMAT, RunFacts
from testbed.results.tables.schemas import LATER_TABLES, SCHEMAS
from testbed.results.tables.writer import read_table
from testbed.scenario import Expectation

Damage = Callable[[Path], object]


def report(run_dir: Path) -> Result:
    return CliRunner().invoke(app, ["report", str(run_dir)])


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def tear(path: Path) -> None:
    """Parts of the middle are lost, the footer is there."""
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(content)


def change_facts(run_dir: Path, *where: str | int, to: object) -> None:
    facts = orjson.loads((run_dir / "facts.json").read_bytes())
    place = facts
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = to
    (run_dir / "facts.json").write_bytes(orjson.dumps(facts))


def foreign(path: Path, **columns: list[object]) -> None:
    pq.write_table(pa.table(columns), path)


def with_text_for_times(path: Path) -> None:
    rows = pq.read_table(path)
    text = pa.array(["soon"] * rows.num_rows)
    pq.write_table(rows.set_column(rows.schema.get_field_index("start_s"), "start_s", text), path)


def become_folder(path: Path) -> None:
    path.unlink(missing_ok=True)  # there is no summary yet
    path.mkdir()


def become_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("no folder")


REQUESTS = "requests/east-a.parquet"
NO_PARQUET = "is no Parquet file, or only a part of one"


@pytest.mark.parametrize(
    ("damage", "file", "what"),
    [
        pytest.param(lambda run: cut(run / REQUESTS), REQUESTS, NO_PARQUET, id="truncated table"),
        pytest.param(lambda run: (run / REQUESTS).write_bytes(b""), REQUESTS, NO_PARQUET, id="empty table"),
        pytest.param(lambda run: (run / REQUESTS).write_text("a,b\n1,2"), REQUESTS, NO_PARQUET, id="CSV as table"),
        pytest.param(lambda run: tear(run / REQUESTS), REQUESTS, NO_PARQUET, id="torn table"),
        pytest.param(
            lambda run: foreign(run / "hops/east-a.parquet", colour=["red"]),
            "hops/east-a.parquet",
            "is of another table: it has no column request_id",
            id="foreign table",
        ),
        pytest.param(
            lambda run: with_text_for_times(run / "hops/east-a.parquet"),
            "hops/east-a.parquet",
            "is of another table: start_s is text, and should be numbers",
            id="column of another type",
        ),
        pytest.param(
            lambda run: shutil.copy(run / "events/control-plane.parquet", run / REQUESTS),
            REQUESTS,
            "is of another table: it has no column request_id",
            id="table in the place of another",
        ),
        pytest.param(lambda run: (run / "facts.json").unlink(), "facts.json", "is missing, so this", id="no facts"),
        pytest.param(lambda run: (run / "facts.json").write_bytes(b""), "facts.json", "is no JSON", id="empty facts"),
        pytest.param(lambda run: cut(run / "facts.json"), "facts.json", "is no JSON, or only a part", id="cut facts"),
        pytest.param(
            lambda run: (run / "facts.json").write_bytes(b"[]"), "facts.json", "should be an object", id="facts a list"
        ),
        pytest.param(
            lambda run: change_facts(run, "faults", 0, "applied_s", to="soon"),
            "facts.json",
            "faults[0].applied_s should be a number",
            id="facts of a wrong type",
        ),
        pytest.param(
            lambda run: change_facts(run, "machines", to={"vm": 1}),
            "facts.json",
            "machines should be a list",
            id="facts of a wrong form",
        ),
        pytest.param(
            lambda run: change_facts(run, "expectations", 0, "metric", to="beauty"),
            "facts.json",
            "expectations: 'beauty' is no metric",
            id="an expectation that nobody can check",
        ),
        pytest.param(
            lambda run: (change_facts(run, "testbed", to="7.0"), change_facts(run, "format", to=FORMAT + 1)),
            "facts.json",
            f"the folder has format {FORMAT + 1}, which testbed 7.0 wrote and reads; "
            f"this is testbed {version('testbed')}, which reads format {FORMAT}",
            id="another format",
        ),
        pytest.param(
            lambda run: (change_facts(run, "format", to=FORMAT + 1), change_facts(run, "faults", to="none")),
            "facts.json",
            f"the folder has format {FORMAT + 1}",
            id="another format, and what would be damage in this one",
        ),
        pytest.param(
            lambda run: change_facts(run, "format", to="new"),
            "facts.json",
            "format should be a whole number",
            id="a format that is none",
        ),
        pytest.param(
            lambda run: become_folder(run / REQUESTS),
            REQUESTS,
            "cannot be read: ",
            id="folder in the place of a file",
        ),
        pytest.param(
            lambda run: become_folder(run / "facts.json"), "facts.json", "Is a directory", id="facts a folder"
        ),
        pytest.param(lambda run: become_file(run / "links"), "links", "should be a folder", id="table a file"),
        pytest.param(
            lambda run: become_folder(run / "summary.json"),
            "summary.json",
            "cannot be written: Is a directory",
            id="summary a folder",
        ),
    ],
)
def test_damage_is_one_line_that_names_the_file_and_what_is_wrong(
    run_dir: Path, damage: Damage, file: str, what: str
) -> None:
    damage(run_dir)
    result = report(run_dir)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{run_dir / file}: ")
    assert what in line


def test_a_run_from_before_there_was_a_table_is_reported_and_what_needs_the_table_does_not_hold(run_dir: Path) -> None:
    facts = RunFacts.load(run_dir)
    bound = Expectation("lost_writes", "all", None, None, None, 0.0, "lost_writes at most 0")
    replace(facts, expectations=(bound,)).save(run_dir)
    shutil.rmtree(run_dir / "operations")
    result = report(run_dir)
    assert result.exit_code == 1
    earlier = "an earlier version recorded the run, without this table"
    assert result.stderr == f"{run_dir / 'operations'}: {earlier}\n"


@pytest.mark.parametrize(
    ("table", "left"),
    [
        (table, left)
        for table in sorted(SCHEMAS)
        for left in ("nothing", "an empty folder", "an unfinished file")
        if table not in LATER_TABLES or left != "nothing"
    ],
)
def test_a_missing_table_is_never_a_pass(run_dir: Path, table: str, left: str) -> None:
    shutil.rmtree(run_dir / table)
    if left != "nothing":
        (run_dir / table).mkdir()
    if left == "an unfinished file":
        (run_dir / table / "web-1.parquet.tmp").write_bytes(b"PAR1")
    result = report(run_dir)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{run_dir / table}: this table is missing")


def test_everything_that_is_damaged_has_a_line(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "pods")
    cut(run_dir / "hops" / "east-b.parquet")
    cut(run_dir / "hops" / "east-c.parquet")
    result = report(run_dir)
    assert result.exit_code == 2
    files = [line.partition(": ")[0] for line in result.stderr.splitlines()]
    assert files == [str(run_dir / part) for part in ("hops/east-b.parquet", "hops/east-c.parquet", "pods")]


def test_a_file_and_nothing_at_all_are_no_result_folders(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text("kind: Scenario")
    for name, what in (("scenario.yaml", "is a file, not the folder of a run"), ("gone", "there is no such folder")):
        result = report(tmp_path / name)
        assert (result.exit_code, result.stderr) == (2, f"{tmp_path / name}: {what}\n")


def test_a_folder_that_cannot_be_written_to_says_that_the_summary_cannot(run_dir: Path) -> None:
    run_dir.chmod(0o500)
    command = [sys.executable, "-c", "from testbed.cli import main; main()", "report", str(run_dir)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override", *command]  # else root may write anywhere
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{run_dir / 'summary.json'}: cannot be written: Permission denied\n"


def test_a_folder_of_an_earlier_version_is_reported_and_says_what_it_lacks(run_dir: Path) -> None:
    file = run_dir / "requests" / "east-a.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["method", "path"]), file)
    assert read_table(run_dir, "requests").schema == SCHEMAS["requests"]
    result = report(run_dir)
    assert result.exit_code == 0
    assert result.stderr == f"{run_dir / 'requests'}: an earlier version wrote it, without method, path\n"


def test_a_folder_from_before_formats_is_read_as_the_first(run_dir: Path) -> None:
    facts = orjson.loads((run_dir / "facts.json").read_bytes())
    assert (facts.pop("format"), facts.pop("testbed")) == (FORMAT, version("testbed"))
    before = report(run_dir)
    (run_dir / "facts.json").write_bytes(orjson.dumps(facts))
    result = report(run_dir)
    assert (result.exit_code, result.stderr, result.stdout) == (0, "", before.stdout)


def test_an_undamaged_folder_is_reported(run_dir: Path) -> None:
    result = report(run_dir)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("PASSED")
