"""Kills whichever master leads, again and again, on one live cluster: `make takeovers`.

Prints for each kill how long it took until another ran the controllers. The exit code is 1 if that was not within the
bounds ([T, 3T] of the election time-out, or 12 to 20 s with Kubernetes' Lease), or if a pod or a node suffered.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from testbed.emulation.driver.local_ray import prepare

prepare()  # before anything imports Ray

from testbed.emulation.actors.reports import Recorded  # noqa: E402
from testbed.emulation.driver.events import RecordsCollected, SessionEvent  # noqa: E402
from testbed.emulation.driver.interrupts import Interrupts  # noqa: E402
from testbed.emulation.driver.outset import Prepared, prepared  # noqa: E402
from testbed.emulation.driver.session import Session  # noqa: E402
from testbed.faults.masters import MasterFault  # noqa: E402
from testbed.scenario import Scenario, load_scenario  # noqa: E402

SCENARIO = Path(__file__).parent / "emulation" / "scenarios" / "masters.yaml"
LEASE = (
    "spec.controlPlane.timings={leaderElectLeaseDuration: 15s, leaderElectRenewDeadline: 10s, "
    "leaderElectRetryPeriod: 2s}"
)
WITHIN_S = 60.0
POLL_S = 0.1
SUFFERED = {"Killing", "ProcessExited", "NodeNotReady", "TaintManagerEviction"}


class Watched:
    """All events of a cluster."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []

    def hear(self, event: SessionEvent) -> None:
        if isinstance(event, RecordsCollected):
            self.events += event.events

    async def next(self, session: Session, reason: str, after_s: float) -> Recorded:
        """The first of that kind from then on."""
        deadline_s = asyncio.get_running_loop().time() + WITHIN_S
        while True:
            await session.observe()
            found = [each for each in self.events if each.reason == reason and each.t_s >= after_s]
            if found:
                return min(found, key=lambda each: each.t_s)
            if asyncio.get_running_loop().time() > deadline_s:
                raise TimeoutError(f"nobody has {reason} within {WITHIN_S:g} s")
            await asyncio.sleep(POLL_S)


async def takeovers(scenario: Scenario, ready: Prepared, kills: int, least_s: float, most_s: float) -> int:
    """How many were not as they should be."""
    watched = Watched()
    opened = Session.opened(scenario, ready.surveyed, ready.folders, ready.disk, watched.hear, ready.ordered_s)
    async with opened as session:
        await session.up()
        leads = await watched.next(session, "LeaderElected", 0.0)
        bad = 0
        for number in range(1, kills + 1):
            before = len(watched.events)
            await session.inject(f"kill-{number}", MasterFault(leads.source, "kill").effects(scenario.topology))
            killed = await watched.next(session, "Killed", leads.t_s)
            former, leads = leads, await watched.next(session, "LeaderElected", killed.t_s)
            took_s = leads.t_s - killed.t_s
            # The killed one has to be back, and known to the others, before the next dies.
            await watched.next(session, "Started", killed.t_s)
            await asyncio.sleep(3 * scenario.cluster.timings.election_timeout_s)
            await session.observe()
            suffered = [f"{each.object} {each.reason}" for each in watched.events[before:] if each.reason in SUFFERED]
            ok = least_s <= took_s <= most_s and not suffered
            bad += not ok
            verdict = "" if ok else "   NOT AS IT SHOULD BE " + ", ".join(suffered)
            print(f"{number:2d}  {former.source} > {leads.source}  {took_s:7.3f} s{verdict}", flush=True)
        await session.down()
    print(f"{bad} of {kills} not within {least_s:g} to {most_s:g} s, or with something lost")
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--lease", action="store_true", help="with Kubernetes' timings of leader election")
    arguments = parser.parse_args()
    scenario = load_scenario(SCENARIO, [LEASE] if arguments.lease else [])
    timeout_s = scenario.cluster.timings.election_timeout_s
    bounds = (12.0, 20.0) if arguments.lease else (timeout_s, 3 * timeout_s)
    with tempfile.TemporaryDirectory(prefix="takeovers-") as folder:
        ready = prepared(scenario, Path(folder), lambda _: None, Interrupts(), None, 1, "node")
        with ready as there:
            return int(asyncio.run(takeovers(scenario, there, arguments.kills, *bounds)) > 0)


if __name__ == "__main__":
    sys.exit(main())
