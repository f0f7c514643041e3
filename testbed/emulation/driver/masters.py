"""The control plane as whoever drives a cluster asks it: whichever master leads, with what the others know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from testbed.control.masters.messages import NotLeading
from testbed.emulation.actors.vigil import ActorLost
from testbed.emulation.driver.member import MachineLost, Resident
from testbed.emulation.processes.master import ControlPlaneDown

LEADS_WITHIN_S = 20.0
"""Of several masters, one."""
POLL_S = 0.1


class Masters:
    """All of them, by place."""

    def __init__(self, residents: Mapping[str, Resident]) -> None:
        self.all = tuple(residents.values())
        self._led_last = self.all[0]

    async def ask_leader(self, method: str, *arguments: object) -> Any:
        """Of several, the one that leads. Raises ControlPlaneDown, of several if none leads for some time."""
        deadline_s = time.monotonic() + LEADS_WITHIN_S
        while True:
            down: list[str] = []
            for master in sorted(self.all, key=lambda master: master is not self._led_last):
                try:
                    answer = await master.ask(method, *arguments)
                except NotLeading:
                    continue
                except (ControlPlaneDown, MachineLost, ActorLost) as why:
                    if len(self.all) == 1:
                        raise
                    down.append(str(why))
                    continue
                self._led_last = master
                return answer
            if time.monotonic() > deadline_s:
                raise ControlPlaneDown("; ".join(["no master leads", *down]))
            await asyncio.sleep(POLL_S)

    async def ask_knowing(self, method: str, *arguments: object) -> Any:
        """The same, who is told what the others know of those that they tell."""
        if len(self.all) == 1:
            return await self.ask_leader(method, *arguments)
        found = await asyncio.gather(*(master.ask("streams") for master in self.all), return_exceptions=True)
        streams = []
        for each in found:
            if not isinstance(each, BaseException):
                streams.append(each)
            elif not isinstance(each, ControlPlaneDown | MachineLost | ActorLost):
                raise each
        return await self.ask_leader(method, *arguments, *streams)


async def until_answered(ask: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
    """Ask the control plane until there is one that answers."""
    while True:
        try:
            return await ask(*arguments)
        except ControlPlaneDown:
            await asyncio.sleep(POLL_S)
