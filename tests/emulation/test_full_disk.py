"""A disk without room: what is said before, what is kept, and what is named as lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.emulation.actors.reports import Recorded
from testbed.emulation.driver.cluster import ClusterRecords
from testbed.emulation.driver.disk import DiskFull, RunDisk, expected_bytes
from testbed.emulation.driver.recording import record
from testbed.results.tables.schemas import Clock
from testbed.results.tables.writer import read_table
from testbed.scenario import Scenario, load_scenario
from tests.emulation.conftest import SCENARIOS, finish_run, start_run

SMALL = SCENARIOS / "small.yaml"

SENT = b'{"e":"s","id":"%d","t":"GET","u":"/","n":"GET /","p":null,"i":1.0,"s":1.0,"z":"east-a"}\n'

Disk = Callable[[str], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """`disk("64k")`: a folder on a file system of that size."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / size
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting a small file system takes root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def scenario(*overrides: str) -> Scenario:
    return load_scenario(SMALL, overrides)


def test_what_a_run_will_record_grows_with_its_load_and_its_calls() -> None:
    small = expected_bytes(scenario())
    # 80 requests left 170 kB, most of it whatever is sent.
    assert 130_000 < small < 300_000
    longer = expected_bytes(scenario("spec.load.duration=4000s"))
    assert 80_000 * 700 < longer - small < 80_000 * 1500
    chain = (
        "spec.services={web: {replicas: 1, workload: {calls: [[a, b]]}}, a: {workload: {calls: [b]}}, b: {}}",
        "spec.load.duration=4000s",
    )
    assert expected_bytes(scenario(*chain)) > 3 * longer


def test_a_disk_that_is_too_small_for_the_load_is_told_before(disk: Disk) -> None:
    folder = disk("1m")
    assert RunDisk(folder, scenario()).shortage() is None
    warning = RunDisk(folder, scenario("spec.load.duration=600s")).shortage()
    assert warning is not None
    assert f"the disk of {folder} (mounted at {folder}) has 1.0 MB free" in warning
    assert "600 s of about 20 requests/s record about 14" in warning


def test_a_disk_is_full_as_soon_as_there_would_be_no_room_for_tables(disk: Disk) -> None:
    folder = disk("1m")
    run_disk = RunDisk(folder, scenario())
    run_disk.require_room()
    (folder / "logs").mkdir()
    with (folder / "logs" / "east-a.requests.jsonl").open("wb") as log:
        log.write(bytes(600_000))
    run_disk.require_room()
    with (folder / "logs" / "east-b.requests.jsonl").open("wb") as log:
        log.write(bytes(120_000))
    with pytest.raises(DiskFull, match=r"\(mounted at .*\) is full: 0\.3 MB are left, with 0\.7 MB recorded"):
        run_disk.require_room()


def test_only_a_full_disk_is_blamed_for_what_could_not_be_written(disk: Disk) -> None:
    run_disk = RunDisk(disk("64k"), replace(scenario(), name="x"))
    with pytest.raises(DiskFull, match="is full; lost: the summary"), run_disk.blamed("the summary"):
        (run_disk.folder / "summary.json").write_bytes(bytes(100_000))
    with pytest.raises(FileNotFoundError), run_disk.blamed("the summary"):
        (run_disk.folder / "nowhere" / "summary.json").write_bytes(b"")


def test_a_table_for_which_there_is_no_room_is_named_and_the_others_are_whole(disk: Disk) -> None:
    folder = disk("64k")
    (folder / "logs").mkdir()
    topology = scenario().topology
    lines = [SENT % number for number in range(100)]
    (folder / "logs" / "east-a.requests.jsonl").write_bytes(b"".join(lines))
    events = [Recorded(1.0, "master", "Pod", "web-1", "Told", {"what": os.urandom(40).hex()}) for _ in range(2000)]
    records = ClusterRecords(events, [], [], ())
    clock = Clock(0.0, 0.0)
    written = record(folder, clock, lambda place: clock, topology, records, [])
    assert written.lost == ("events of the cluster",)
    assert read_table(folder, "requests").num_rows == 100
    assert not list(folder.glob("*/*.tmp"))


@pytest.mark.live
def test_a_disk_without_room_for_any_run_is_refused_by_name_and_left_as_it_was(disk: Disk) -> None:
    folder = disk("64k")
    run = finish_run(start_run("small.yaml", folder), folder)
    assert run.exit_code == 3
    assert f"(mounted at {folder}) is full" in run.stderr
    assert "Nothing was measured." in run.stderr
    assert "Traceback" not in run.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.live
def test_a_disk_that_fills_up_ends_the_run_with_what_was_measured(disk: Disk) -> None:
    folder = disk("1m")
    overrides = ("spec.load.sources=[{zone: east-a, rate: 200/s}]", "spec.load.duration=100s")
    run = finish_run(start_run("small.yaml", folder, *overrides), folder)
    assert run.exit_code == 3, run.stderr
    assert f"warning: the disk of {run.run_dir} (mounted at {folder}) has " in run.stderr
    assert "Traceback" not in run.stderr
    assert any(f"(mounted at {folder}) is full" in reason for reason in run.summary["invalid_reasons"])
    requests = run.summary["requests"]
    assert requests["sent"] == run.summary["locust"]["requests"] == len(run.rows("requests")) > 100
    assert len(run.rows("hops")) > 100
