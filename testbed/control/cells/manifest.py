"""A partition map as an object for reading: which cell owns which partitions, and where it lies."""

from __future__ import annotations

from typing import Any

from testbed.control.cells.ownership import partitions_of, written
from testbed.objects.cells import Cell, PartitionMap, ShuffleShards


def spec_of(cell_map: PartitionMap) -> dict[str, Any]:
    rule = cell_map.rule
    of_rule = {"digits": list(rule.digits), "ranges": list(rule.bounds)}
    return {
        "version": cell_map.version,
        "key": {cell_map.key.kind: cell_map.key.name},
        "partition": {rule.kind: of_rule.get(rule.kind, {})},
        "partitions": len(cell_map.owners),
        "cells": {cell.name: _cell(cell, cell_map) for cell in cell_map.cells},
        "cities": {city.name: list(city.zones) for city in cell_map.cities},
        "cookie": cell_map.cookie,
        "entry": cell_map.entry,
        **({"router": {"ttlSeconds": cell_map.answer_ttl_s}} if cell_map.entry == "directed" else {}),
        "firstHit": cell_map.first_hit,
        "misdirected": cell_map.misdirected,
        "unkeyed": cell_map.unkeyed,
        **({"shuffleShards": {each.service: _shards(each) for each in cell_map.shards}} if cell_map.shards else {}),
    }


def _shards(shards: ShuffleShards) -> dict[str, Any]:
    return {"size": shards.size, "workers": shards.workers, "seed": shards.seed}


def _cell(cell: Cell, cell_map: PartitionMap) -> dict[str, Any]:
    found: dict[str, Any] = {
        "zones": list(cell.zones),
        "partitions": written(partitions_of(cell_map, cell.name)),
    }
    if cell.groups:
        found["groups"] = {group.name: group.weight for group in cell.groups}
    if cell.backup is not None:
        found["backup"] = cell.backup
    if cell.elastic:
        found["elastic"] = True
    return found
