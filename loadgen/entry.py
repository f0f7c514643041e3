"""Where requests enter the cluster: the clients' view of the health-checked entry table.

Behaves like the resolver of a client that honours a record's time to live: a change of the table reaches new requests
only when the last answer has expired, and nothing tears down connections to the old entry. Owns the form of the table's
file, for who writes it and who reads it. It imports neither Locust nor gevent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True)
class Entry:
    zone: str
    url: str


def write_entries(
    path: Path,
    entries: Iterable[Entry],
    routers: Iterable[Entry] = (),
    cells: Mapping[str, Iterable[Entry]] = {},
) -> None:
    """Replace the table as a whole: a reader sees the old one or the new one. The best ones come first.

    `entries` are gateways, `cells` those of each cell by its name, and `routers` tell which cell that is.
    """
    temporary = path.with_suffix(".tmp")
    table = {
        "entries": list(entries),
        "routers": list(routers),
        "cells": {cell: list(gateways) for cell, gateways in cells.items()},
    }
    temporary.write_bytes(orjson.dumps(table))
    temporary.replace(path)


@dataclass(frozen=True, slots=True)
class _Answer:
    gateway: Entry
    router: Entry | None
    cells: Mapping[str, Entry]


class Resolver:
    """Answers with the first entry of the table, and keeps the last answer where the table is empty or unreadable."""

    def __init__(self, path: Path, ttl_s: float, now: float) -> None:
        self._path = path
        self._ttl_s = ttl_s
        self._answer = self._read()
        self._expires_s = now + ttl_s

    def resolve(self, now: float) -> Entry:
        """The gateway for who belongs to no cell. `now` is monotonic seconds."""
        return self._at(now).gateway

    def router(self, now: float) -> Entry:
        """Only where there are routers."""
        found = self._at(now).router
        assert found is not None, f"{self._path}: names no router, and clients are to ask one"
        return found

    def gateway_of(self, cell: str, now: float) -> Entry:
        """A gateway of that cell; any, if the table does not know the cell."""
        answer = self._at(now)
        return answer.cells.get(cell, answer.gateway)

    def _at(self, now: float) -> _Answer:
        if now >= self._expires_s:
            self._expires_s = now + self._ttl_s
            with suppress(OSError, ValueError):  # a resolver that gets no answer keeps the stale one
                self._answer = self._read()
        return self._answer

    def _read(self) -> _Answer:
        table = orjson.loads(self._path.read_bytes())
        gateway = _first(table["entries"])
        if gateway is None:
            raise ValueError(f"{self._path}: the table of entries is empty, it needs at least one")
        cells = {cell: first for cell, found in table.get("cells", {}).items() if (first := _first(found)) is not None}
        return _Answer(gateway, _first(table.get("routers", [])), cells)


def _first(entries: list[dict[str, str]]) -> Entry | None:
    return Entry(entries[0]["zone"], entries[0]["url"].rstrip("/")) if entries else None
