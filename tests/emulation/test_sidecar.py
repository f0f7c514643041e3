"""A pilot-agent with a real Envoy, and no Ray."""

from __future__ import annotations

from pathlib import Path

from testbed.control.views.envoy.envoy_api import CLUSTER_TYPE
from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.actors.seam import handle_of
from testbed.emulation.actors.sidecar import Sidecar
from tests.emulation.loopback import eventually

STARTED_WITHIN_S = 20.0


class Agent:
    def __init__(self) -> None:
        self.reports: list[tuple[str, ...]] = []
        self.exits: list[int] = []

    async def proxy_reported(self, pod: str, what: str, at_s: float, details: tuple[str, ...]) -> None:
        self.reports.append((what, *details))

    async def process_exited(self, pod: str, process: str, life: int, code: int, last_words: str) -> None:
        self.exits.append(life)


async def test_a_proxy_that_was_stopped_and_is_started_again_gets_its_configuration(tmp_path: Path) -> None:
    agent = Agent()
    sidecar = Sidecar(handle_of(agent), MachineFolders(tmp_path, tmp_path, "testbed-none"), "web-1")
    for life in (1, 2):
        agent.reports.clear()
        await sidecar.start(life)
        await eventually(lambda: ("connected",) in agent.reports, STARTED_WITHIN_S)
        await sidecar.publish(CLUSTER_TYPE, f"v{life}", ())
        acked = ("acked", CLUSTER_TYPE, f"v{life}")
        await eventually(lambda acked=acked: acked in agent.reports, STARTED_WITHIN_S)
        await sidecar.stop()
        await eventually(lambda life=life: agent.exits[-1:] == [life])
