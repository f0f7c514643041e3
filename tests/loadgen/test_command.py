from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from loadgen import settings
from loadgen.command import command
from loadgen.settings import ClosedSource


def write(path: Path, **changes: Any) -> Path:
    wanted = {
        "origin_zone": "a",
        "seed": 7,
        "sources": [{"rate_per_s": 10.0}, {"rate_per_s": 5.0}, {"users": 20, "think_time_s": 0.1}],
        "duration_s": 1.0,
        "requests": [{"name": "web", "method": "GET", "path": "/"}],
        "timeout_s": 2.5,
        "connect_timeout_s": 1.0,
        "entry_file": "entry.json",
        "entry_ttl_s": 3.0,
        "records_file": "records.jsonl",
        "locustfile": None,
    }
    file = path / "settings.json"
    file.write_bytes(orjson.dumps(wanted | changes))
    return file


def option(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_locust_gets_one_user_for_all_open_sources_and_one_for_each_closed_user(tmp_path: Path) -> None:
    argv = command(write(tmp_path))
    assert argv[:3] == [sys.executable, "-m", "locust"]
    assert option(argv, "--users") == option(argv, "--spawn-rate") == "21"
    assert option(argv, "--stop-timeout") == "4"


def test_a_locustfile_is_loaded_after_the_plugin(tmp_path: Path) -> None:
    argv = command(write(tmp_path, locustfile="/user.py", sources=[{"users": 20}]))
    plugin, user = option(argv, "-f").split(",")
    assert plugin.endswith("plugin.py")
    assert user == "/user.py"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": []}, "no load"),
        ({"sources": [{"rate_per_s": 0}]}, "above 0"),
        ({"sources": [{"rate_per_s": 1, "arrival": "bursty"}]}, "'poisson' or 'constant'"),
        ({"requests": []}, "no requests"),
        ({"locustfile": "/user.py", "sources": [{"rate_per_s": 1.0}]}, "needs sources with users"),
        ({"requests": [{"method": "GET", "path": "/"}]}, "missing.*'name'"),
        ({"warmup_s": 1.0}, "'warmup_s'"),
    ],
)
def test_settings_that_cannot_be_carried_out_are_refused(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command(write(tmp_path, **changes))


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    wanted = settings.load(write(tmp_path, locustfile=None))
    for each in (wanted, replace(wanted, sources=(ClosedSource(3, 0.5),), locustfile=Path("/user.py"))):
        each.save(tmp_path / "again.json")
        assert settings.load(tmp_path / "again.json") == each


def test_what_both_sides_have_to_know_can_be_imported_without_locust_or_gevent(tmp_path: Path) -> None:
    imported = "import sys, loadgen.command, loadgen.entry, loadgen.records, loadgen.settings"
    code = f"{imported}; assert not {{'locust', 'gevent'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2])
