"""A partition map has no effect until it is delivered, and each delivery is recorded as a push."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

from testbed.control.cells.ownership import Move, evenly, moved
from testbed.control.cells.subsets import subsets_of
from testbed.control.messages import PushConfig
from testbed.control.views.envoy.envoy_api import ROUTE_TYPE
from testbed.objects.cells import CELL, Cell, PartitionKey, PartitionMap, PartitionRule
from testbed.objects.core import Node, Service
from testbed.objects.mesh import DestinationRule
from testbed.objects.workloads import Deployment
from tests.control.world import CLUSTER, WEB, World

MAP = PartitionMap(
    "cells",
    1,
    PartitionKey("header", "x-user-id"),
    PartitionRule("modulo"),
    (Cell("rz01", ("east-a",)), Cell("rz02", ("east-b",))),
    evenly(("rz01", "rz02"), 10),
)
CELLS = replace(
    CLUSTER,
    objects=(
        *(each for each in CLUSTER.objects if each.name not in ("web", "orders") or isinstance(each, Node)),
        *(
            Deployment(f"web-{cell.name}", 1, replace(WEB, zones=cell.zones, extra_labels=((CELL, cell.name),)))
            for cell in MAP.cells
        ),
        Service("web", selector=(("app", "web"),), service_class="sharded"),
        DestinationRule("web", "web", subsets=subsets_of(MAP, "sharded")),
        MAP,
    ),
)
PROXIES = {"gateway-east-a-1", "web-rz01-1", "web-rz02-1"}


def pushes(world: World, since_s: float) -> list[tuple[float, PushConfig]]:
    return [(at, each) for at, each in world.commands if isinstance(each, PushConfig) and at > since_s]


def test_a_new_map_is_pushed_once_to_everyone_and_to_who_was_cut_off_later() -> None:
    world = World(CELLS)
    world.run(10.0)
    assert world.plane.not_ready() == []
    world.apply(moved(MAP, Move((0,), "rz01", "rz02")))
    assert world.plane.not_ready() != [], "it is not delivered yet"
    world.run(10.5)
    first = pushes(world, 10.0)
    assert {each.proxy for _, each in first} == PROXIES
    assert Counter((each.proxy, each.type_url) for _, each in first) == {(proxy, ROUTE_TYPE): 1 for proxy in PROXIES}
    assert world.plane.not_ready() == []
    world.cut_off = ("east-b-1", "east-b-2")
    world.apply(moved(moved(MAP, Move((0,), "rz01", "rz02")), Move((1,), "rz01", "rz02")))
    world.run(11.5)
    waiting = {each.name: each.reason for each in world.plane.not_ready()}
    assert set(waiting) == {"web-rz02-1"}
    assert "not in sync" in waiting["web-rz02-1"]
    world.heal()
    world.run(12.5)
    assert world.plane.not_ready() == []
    versions = [
        int(each.version) for _, each in pushes(world, 0.0) if (each.proxy, each.type_url) == ("web-rz02-1", ROUTE_TYPE)
    ]
    assert all(later == earlier + 1 for earlier, later in pairwise(versions))
