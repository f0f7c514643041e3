"""Where the runs of a sweep go: one after the other on this machine, or side by side on those of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from testbed.cli.terminal import EXIT_BAD_INPUT, fail
from testbed.emulation.driver.interrupts import Interrupts
from testbed.scenario import Scenario
from testbed.sweep.command import COMMAND, RunLost, RunningHere, RunRefused, Start
from testbed.sweep.plan import Machines

SCENARIO = "scenario.yaml"


@dataclass(frozen=True, slots=True)
class Lane:
    """`options` are those of its runs. `is_there` says whether another run can be started there."""

    machines: Machines
    start: Start
    options: tuple[str, ...] = ()
    is_there: Callable[[], bool] = lambda: True


def lane_here() -> Lane:
    return Lane((), RunningHere)


@contextmanager
def cluster_lanes(
    scenarios: Sequence[Scenario],
    address: str,
    machines: int,
    hosting: Literal["actor", "node"] | None,
    machines_per_run: int | None,
    interrupts: Interrupts,
) -> Iterator[list[Lane]]:
    """Those of the Ray cluster at `address`, for the time of the block; ends where it can carry no run at all."""
    # Imported late: Ray costs a second that a sweep on this machine does not need.
    from testbed.control.placement import PlacementImpossible
    from testbed.emulation.driver import elsewhere
    from testbed.emulation.driver.member import MachineLost
    from testbed.emulation.driver.ray_connection import RayUnreachable
    from testbed.emulation.driver.survey import FleetUnfit

    def start_in(lane: elsewhere.Lane) -> Start:
        def start(scenario: Path, options: Sequence[str], out: Path, printed: Path) -> _Elsewhere:
            arguments = [*COMMAND, "run", SCENARIO, *options, "--out", elsewhere.CommandElsewhere.LEAVES]
            return _Elsewhere(lane, arguments, {SCENARIO: scenario.read_bytes()}, out, printed)

        return start

    class _Elsewhere:
        def __init__(
            self, lane: elsewhere.Lane, arguments: list[str], files: dict[str, bytes], out: Path, printed: Path
        ) -> None:
            self._out, self._printed = out, printed
            try:
                self._command = elsewhere.CommandElsewhere(lane.machines[0], arguments, files)
            except MachineLost as lost:
                raise RunLost(str(lost)) from lost
            except FleetUnfit as unfit:
                raise RunRefused(str(unfit)) from unfit

        def interrupt(self) -> None:
            self._command.interrupt()

        def wait(self) -> int:
            try:
                return self._command.wait(self._out, self._printed)
            except MachineLost as lost:
                raise RunLost(str(lost)) from lost

    def tell(joined: object) -> None:
        print(f"▸ {joined}", flush=True)

    try:
        opened = elsewhere.opened_lanes(scenarios, address, machines, hosting, machines_per_run, tell, interrupts)
        with opened as found:
            only = [() if found.all_machines else (f"--on={','.join(lane.addresses)}",) for lane in found.lanes]
            if not found.here:
                yield [
                    Lane(lane.names, start_in(lane), (f"--address={found.address}", *on), lane.is_there)
                    for lane, on in zip(found.lanes, only, strict=True)
                ]
                return
        # Nobody has to be connected to Ray for runs that this machine drives.
        options = (f"--address={address}", f"--machines={machines}", *only[0])
        yield [Lane(found.lanes[0].names, RunningHere, options)]
    except (RayUnreachable, PlacementImpossible, FleetUnfit) as refusal:
        fail(str(refusal), EXIT_BAD_INPUT)
