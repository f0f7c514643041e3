"""What a replica was ordered, on its disk: whoever restarts goes on by it, until it is told otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import orjson

from testbed.isr.units import Order
from testbed.journal.replacing import replace_durably


class StandingOrders:
    """Who leads each group (`leads`), and partitions of which no writes are taken (`forbidden`), by group."""

    def __init__(self, file: Path, leads: Mapping[int, Order]) -> None:
        """Those of an earlier process; if there was none, `leads` are those that are declared."""
        self._file = file
        self.leads = dict(leads)
        self.forbidden: dict[int, frozenset[int]] = {}
        if file.exists():
            found = orjson.loads(file.read_bytes())
            self.leads |= {int(group): Order(**order) for group, order in found["leads"].items()}
            self.forbidden = {int(group): frozenset(partitions) for group, partitions in found["forbidden"].items()}

    def lead(self, group: int, order: Order) -> None:
        """It is durable when this returns, as all that is ordered here."""
        self.leads[group] = order
        self._write()

    def forbid(self, group: int, partitions: frozenset[int]) -> None:
        self.forbidden[group] = partitions
        self._write()

    def _write(self) -> None:
        """All of it, in the place of the file that was there, at once or not at all."""
        held = {
            "leads": {str(group): order for group, order in self.leads.items()},
            "forbidden": {str(group): sorted(partitions) for group, partitions in self.forbidden.items()},
        }
        new = self._file.with_suffix(".new")
        with new.open("wb") as opened:
            opened.write(orjson.dumps(held))
            opened.flush()
            os.fsync(opened.fileno())
        replace_durably(new, self._file)
