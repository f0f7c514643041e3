"""The phases of a step from one map to the next: which layers are told in which order, and what becomes of writes."""

from __future__ import annotations

from typing import Final, Literal

from testbed.control.cells.operations import Order
from testbed.objects.cells import Layer

Phase = Literal["forbid", "gateways", "sidecars", "catch up", "lift"]
"""`forbid`: no replica takes writes of what moves. `catch up`: the new owner has all that the old one has taken.
`lift`: who goes by the new map takes writes again. The layers have the map then, as far as they can be reached."""

LAYERS: Final[dict[Order, tuple[tuple[Layer, ...], ...]]] = {
    "together": (("gateways", "sidecars"),),
    "gatewaysFirst": (("gateways",), ("sidecars",)),
    "sidecarsFirst": (("sidecars",), ("gateways",)),
}


BACK: Final[tuple[tuple[Phase, ...], ...]] = (("gateways", "sidecars"), ("lift",))
"""What comes instead of all that was to come when replication does not catch up in time: everybody has the former map
again, and whoever led goes on to take writes."""


def phases(order: Order, forbids: bool) -> tuple[tuple[Phase, ...], ...]:
    """One after the other; what is in one phase together is done at the same time.

    With `forbids`, those of Ant's LDC for asynchronous data: forbid writes, move the gateways' mapping, wait for
    replication to catch up, move the applications' mapping (that of sidecars), lift. Only in the order `gatewaysFirst`
    does replication catch up before anybody else leads.
    """
    first, *rest = LAYERS[order]
    return (("forbid",), first, ("catch up",), *rest, ("lift",)) if forbids else LAYERS[order]
