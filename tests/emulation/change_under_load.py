"""A session whose objects change while it serves: real proxies, pods and clients, all actors in one process.

A program of its own, because gRPC must be told before it starts that its process forks. Arguments: the scenario, a
folder for what is written. Prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from testbed.control.api_server import Refused
from testbed.control.placement import Machine
from testbed.emulation.actors.machine import launch_fork_server
from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.actors.seam import in_process
from testbed.emulation.driver import fleet as fleet_module
from testbed.emulation.driver.disk import RunDisk
from testbed.emulation.driver.events import Broken, LoadEnded, LoadFailed, SessionEvent
from testbed.emulation.driver.ray_connection import RayMachine
from testbed.emulation.driver.session import Session
from testbed.emulation.driver.survey import survey
from testbed.emulation.processes.container import ACCESS_SUFFIX
from testbed.emulation.processes.janitor import Janitor
from testbed.objects.core import Node
from testbed.objects.mesh import DestinationRule, HttpRoute, TrafficPolicy, VirtualService
from testbed.objects.places import Locality
from testbed.results.tables.facts import LocustCount
from testbed.scenario import Scenario, load_scenario

HERE = RayMachine(Machine("here", "127.0.0.1", None, 16 << 30, 2.0), "here", is_driver=True, is_head=True)
RULE = DestinationRule("web", "web", TrafficPolicy(load_balancer="ROUND_ROBIN"))
ROUTES = VirtualService("testbed-gateway", ("*",), (HttpRoute("web", timeout_s=2.0),), gateways=("testbed-gateway",))


async def changed_under_load(scenario: Scenario, logs: Path) -> dict[str, Any]:
    surveyed = survey(scenario, [HERE], "node")
    janitor = Janitor()
    folders = MachineFolders(logs, janitor.folder, janitor.run_id)
    launch_fork_server(janitor, folders)
    counts: dict[str, LocustCount] = {}

    def hear(event: SessionEvent) -> None:
        match event:
            case LoadEnded(found):
                counts.update(found)
            case LoadFailed() | Broken():
                raise AssertionError(event)

    disk, now_s = RunDisk(logs, scenario), time.monotonic()
    async with Session.opened(scenario, surveyed, folders, disk, hear, now_s) as session:
        try:
            await session.up()
            await session.prepare_load()
            t0_s = time.monotonic() + 0.5
            await session.start_load(t0_s)
            await asyncio.sleep(1.0)
            refusal = await change(scenario, session)
            changed_s = time.monotonic() - t0_s
            while not session.load_is_over:
                assert time.monotonic() < t0_s + scenario.load.duration_s + 10
                await asyncio.sleep(0.1)
                await session.observe()
            await session.stop_load()
        finally:
            records = await session.down()
            janitor.dismiss()
    (done,) = counts.values()
    return {
        "refusal": refusal,
        "changed_s": changed_s,
        "requests": done.requests,
        "failures": done.failures,
        "calls": {
            pod.name: (logs / f"{pod.name}{ACCESS_SUFFIX}").read_bytes().count(b"\n")
            for pod, _ in records.pods
            if pod.template.service == "web"
        },
        "pushes": [
            {"proxy": push.proxy, "type": push.type_url.rpartition(".")[2], "acked": push.acked_s, "error": push.error}
            for push in records.pushes
        ],
    }


async def change(scenario: Scenario, session: Session) -> str:
    """More pods, other policies, and one of them taken back. Returns why what cannot be was refused."""
    (web,) = (each for each in scenario.cluster.deployments if each.name == "web")
    refusal = ""
    try:
        await session.apply([replace(web, replicas=0), Node("elsewhere", Locality("east", "east-a"))])
    except Refused as refused:
        refusal = str(refused)
    await session.apply([replace(web, replicas=3)])
    await session.apply([RULE, ROUTES])
    await session.delete(DestinationRule, "web")
    return refusal


def start(kind: type, *arguments: object, node_id: str) -> Any:
    return in_process(kind, *arguments)


if __name__ == "__main__":
    fleet_module.start_actor = start
    came_of_it = asyncio.run(changed_under_load(load_scenario(Path(sys.argv[1]), sys.argv[3:]), Path(sys.argv[2])))
    sys.stdout.buffer.write(orjson.dumps(came_of_it))
