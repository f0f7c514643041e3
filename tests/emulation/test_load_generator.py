"""The supervisor of a Locust process that never gets to sending."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.emulation.load_generator import LoadGenerator
from testbed.emulation.reports import MachineFolders
from testbed.network.loopback import LoopbackNetwork
from testbed.scenario import load_scenario

SMALL = Path(__file__).parent / "scenarios" / "small.yaml"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import no_such_module\n", ":1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os\nos._exit(3)\n", None),
    ],
)
async def test_why_there_is_no_load_is_one_line_for_the_user(tmp_path: Path, text: str, why: str | None) -> None:
    locustfile = tmp_path / "mine.py"
    locustfile.write_text(text)
    users = "spec.load.sources=[{zone: east-a, users: 1}]"
    scenario = load_scenario(SMALL, [users])
    network = LoopbackNetwork(250, [place.name for place in scenario.topology.places])
    folders = MachineFolders(tmp_path, tmp_path, "test")
    generator = LoadGenerator("east-a", scenario.topology, scenario.cluster.timings, network, scenario.load, folders, 1)
    await generator.boot()
    try:
        answer = await generator.prepare(locustfile)
    finally:
        await generator.shut_down()
    assert answer is not None
    assert len(answer.splitlines()) == 1
    if why is None:
        assert answer.startswith("the load generator of east-a ended with exit code 3")
    else:
        assert answer == f"{locustfile}{why}"
