"""The operations of a scenario, on time: each step is a new version of the partition map, told layer by layer.

What a step changes is planned in `control.cells.operations`. Who carries them out is an operator: new maps are applied
as objects, and whether they have arrived is asked of the control plane, which only knows of proxies that it reaches.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from testbed.control.cells.operations import Order, PlannedStep, changed
from testbed.control.plane import Behind
from testbed.emulation.actors.vigil import ActorLost, in_short
from testbed.emulation.driver.events import MapChanged, MapDelivered, Watcher
from testbed.emulation.driver.member import MachineLost
from testbed.objects.cells import Layer, PartitionMap, Rollout

LAYER_WAIT_S = 5.0
"""How long a layer is waited for; the other one is told then in any case."""
POLL_S = 0.05

_LAYERS: Final[dict[Order, tuple[tuple[Layer, ...], ...]]] = {
    "together": (("gateways", "sidecars"),),
    "gatewaysFirst": (("gateways",), ("sidecars",)),
    "sidecarsFirst": (("sidecars",), ("gateways",)),
}


class Changeable(Protocol):
    """What operations are carried out on: a Session."""

    async def put_map(self, cell_map: PartitionMap) -> None: ...

    async def behind(self, layer: Layer) -> Behind: ...


class Operating:
    """Steps count from `t0_s`, monotonic seconds."""

    def __init__(
        self, cell_map: PartitionMap, steps: Sequence[PlannedStep], session: Changeable, tell: Watcher, t0_s: float
    ) -> None:
        self._map = cell_map
        self._steps = steps
        self._session = session
        self._tell = tell
        self._t0_s = t0_s
        self.failure: str | None = None
        """Why a step could not be carried out, if so; none comes after it."""

    async def carry_out(self) -> None:
        """One step after the other, each when it is due and those before it have arrived or been waited for."""
        for step in self._steps:
            await asyncio.sleep(max(0.0, self._t0_s + step.at_s - time.monotonic()))
            try:
                await self._carry_out(step)
            except (MachineLost, ActorLost) as failure:
                self.failure = str(failure)
                return
            except Exception as defect:
                self.failure = f"step {step.number} of operation {step.operation} failed: {in_short(defect)}"
                return

    async def _carry_out(self, step: PlannedStep) -> None:
        before, self._map = self._map, changed(self._map, step.change)
        told: tuple[Layer, ...] = ()
        for layers in _LAYERS[step.order]:
            told += layers
            rollout = None if len(told) == 2 else Rollout(told[0], before)
            await self._session.put_map(replace(self._map, rollout=rollout))
            if told == layers:
                self._tell(MapChanged(step, self._map.version, time.monotonic()))
            await asyncio.gather(*(self._delivered(step, layer) for layer in layers))

    async def _delivered(self, step: PlannedStep, layer: Layer) -> None:
        deadline_s = time.monotonic() + LAYER_WAIT_S
        while (behind := await self._session.behind(layer)).ready and time.monotonic() < deadline_s:
            await asyncio.sleep(POLL_S)
        at_s = None if behind.ready else time.monotonic()
        self._tell(MapDelivered(step, layer, at_s, (*behind.ready, *behind.unready)))
