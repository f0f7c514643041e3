"""Models of what bytes cost on their way from caller to callee and back. Distances are called as those of links are."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from testbed.scenario.models.fields import Model, Price


class PriceModel(Model):
    """For a GB (10^9 bytes) that is carried, request or answer; who sends it pays `out`, who receives it `in`."""

    out: Price | None = None
    """Of what leaves the sender."""
    in_: Annotated[Price | None, Field(alias="in")] = None
    """Of what arrives at the receiver."""


class PricesModel(Model):
    """Prices of calls by distance. Calls within a node are free."""

    currency: Annotated[str, Field(min_length=1, max_length=12)] = "USD"
    """What to call it."""
    same_zone: PriceModel = PriceModel()
    """Between two nodes of a zone."""
    same_city: PriceModel = PriceModel()
    """Between two zones of a city."""
    same_region: PriceModel = PriceModel()
    """Between two zones of a region, of different cities where there are any."""
    cross_region: PriceModel = PriceModel()
    """Between two regions."""
