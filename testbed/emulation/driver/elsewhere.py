"""Lanes of a Ray cluster, and commands that are carried out in them: each is driven by a machine of its lane."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from testbed.control.placement import Hosting
from testbed.emulation.actors.errand import LEFT, Errand
from testbed.emulation.actors.machine import Versions
from testbed.emulation.actors.seam import start_actor
from testbed.emulation.driver.events import MachinesJoined
from testbed.emulation.driver.fleet import INTRODUCTION_TIMEOUT_S
from testbed.emulation.driver.interrupts import Interrupts
from testbed.emulation.driver.member import MachineLost
from testbed.emulation.driver.outset import reached_ray
from testbed.emulation.driver.ray_connection import RayMachine, machines
from testbed.emulation.driver.survey import FleetUnfit, joined_machines, lanes_among
from testbed.emulation.processes.janitor import Janitor
from testbed.scenario import Scenario

ASKED_FOR_S = 5.0
"""How long a question for the end of a command stays open."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Machines for one run at a time, that which drives it first."""

    machines: tuple[RayMachine, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """In alphabetical order, so that the same machines are the same lane to whoever remembers it."""
        return tuple(sorted(machine.name for machine in self.machines))

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(machine.address for machine in self.machines)

    def is_there(self) -> bool:
        """Whether all of its machines are, as far as Ray knows by now."""
        try:
            return set(self.addresses) <= {machine.address for machine in machines()}
        except RayError:
            return False


@dataclass(frozen=True, slots=True)
class Lanes:
    """`address` is that of Ray from whichever machine. `here` if there is one lane only and this machine drives it."""

    lanes: tuple[Lane, ...]
    address: str
    here: bool
    all_machines: bool


@contextlib.contextmanager
def opened_lanes(
    scenarios: Sequence[Scenario],
    address: str,
    at_least: int,
    hosting: Hosting | None,
    machines_per_run: int | None,
    tell: Callable[[MachinesJoined], None],
    interrupts: Interrupts,
) -> Iterator[Lanes]:
    """The lanes that there are for runs of whichever of the scenarios, connected to Ray for the time of the block.

    Raises RayUnreachable, PlacementImpossible or FleetUnfit.
    """
    janitor = Janitor()
    with contextlib.ExitStack() as ending:
        ending.callback(janitor.dismiss)
        ending.enter_context(reached_ray(interrupts, address, janitor, 0))
        found = joined_machines(max(at_least, machines_per_run or 1), tell)
        lanes = tuple(Lane(tuple(lane)) for lane in lanes_among(scenarios, found, hosting, machines_per_run))
        here = next(machine.address for machine in found if machine.is_driver)
        yield Lanes(
            lanes,
            ray.get_runtime_context().gcs_address,
            here=len(lanes) == 1 and lanes[0].machines[0].address == here,
            all_machines=len(lanes[0].machines) == len(found),
        )


class CommandElsewhere:
    """A Python program on another machine, or on this one as if it were another. Calls wait for their answer, and may
    come from several threads."""

    LEAVES = LEFT
    """The folder, from where it runs, into which it has to put what is to come home."""

    def __init__(self, machine: RayMachine, arguments: Sequence[str], files: Mapping[str, bytes]) -> None:
        """It runs in a folder with these files, and does so when this returns: no interrupt can come before it.

        Raises MachineLost, or FleetUnfit for another version of testbed.
        """
        self._machine = machine
        self._actor = start_actor(Errand, node_id=machine.node_id)
        try:
            theirs = _answer(self._actor.versions.remote(), INTRODUCTION_TIMEOUT_S)
        except RayError as error:
            raise self._lost(error) from error
        if theirs != (ours := Versions.here()):
            raise FleetUnfit(
                f"machine {machine.name} ({machine.address}) has {theirs}, but this command has {ours}: "
                "install the same on every machine"
            )
        try:
            _answer(self._actor.start.remote(list(arguments), dict(files)))
        except RayError as error:
            raise self._lost(error) from error

    def interrupt(self) -> None:
        """Ask it to end in good order."""
        self._actor.interrupt.remote()

    def wait(self, home: Path, printed: Path) -> int:
        """Its exit code, once what it left is in `home` and what it printed in a file. Raises OSError for these, and
        MachineLost."""
        try:
            code: int | None = None
            while code is None:
                code = _answer(self._actor.wait.remote(ASKED_FOR_S))
            printed.write_bytes(_answer(self._actor.printed.remote()))
            self._bring_home(home)
            _answer(self._actor.close.remote())
        except RayError as error:
            raise self._lost(error) from error
        return code

    def _bring_home(self, home: Path) -> None:
        left: dict[str, int] = _answer(self._actor.left.remote())
        # Two tries may have had the same name: each was the first one where it was made.
        names = {top: _new_name(home, top) for top in dict.fromkeys(Path(name).parts[0] for name in left)}
        for name, size in left.items():
            top, *below = Path(name).parts
            path = home.joinpath(names[top], *below)
            path.parent.mkdir(0o700, parents=True, exist_ok=True)
            with path.open("wb") as file:
                while file.tell() < size:
                    file.write(_answer(self._actor.piece.remote(name, file.tell())))

    def _lost(self, error: RayError) -> MachineLost:
        name = self._machine.name
        if isinstance(error, RayTaskError):
            return MachineLost(f"what the run on machine {name} left cannot be had: {str(error).splitlines()[-1]}")
        return MachineLost(f"machine {name} was lost, and what it had recorded")


def _answer(asked: Any, within_s: float | None = None) -> Any:
    return ray.get(asked, timeout=within_s)


def _new_name(home: Path, name: str) -> str:
    number = 1
    wanted = name
    while (home / wanted).exists():
        number += 1
        wanted = f"{name}-{number}"
    return wanted
