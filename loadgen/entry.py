"""Where requests enter the cluster: the clients' view of the health-checked entry table.

Behaves like the resolver of a client that honours a record's time to live: a change of the table reaches new requests
only when the last answer has expired, and nothing tears down connections to the old entry. Owns the form of the table's
file, for who writes it and who reads it. It imports neither Locust nor gevent.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True)
class Entry:
    zone: str
    url: str


def write_entries(path: Path, entries: Iterable[Entry]) -> None:
    """Replace the table as a whole: a reader sees the old one or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(orjson.dumps({"entries": list(entries)}))
    temporary.replace(path)


class Resolver:
    """Answers with the first entry of the table, and keeps the last answer where the table is empty or unreadable."""

    def __init__(self, path: Path, ttl_s: float, now: float) -> None:
        self._path = path
        self._ttl_s = ttl_s
        self._answer = self._read()
        self._expires_s = now + ttl_s

    def resolve(self, now: float) -> Entry:
        """`now` is monotonic seconds."""
        if now >= self._expires_s:
            self._expires_s = now + self._ttl_s
            with suppress(OSError, ValueError):  # a resolver that gets no answer keeps the stale one
                self._answer = self._read()
        return self._answer

    def _read(self) -> Entry:
        entries = orjson.loads(self._path.read_bytes())["entries"]
        if not entries:
            raise ValueError(f"{self._path}: the table of entries is empty, it needs at least one")
        return Entry(entries[0]["zone"], entries[0]["url"].rstrip("/"))
