from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from loadgen.entry import Entry, Resolver, write_entries


def write(path: Path, *zones: str) -> None:
    path.write_bytes(orjson.dumps({"entries": [{"zone": zone, "url": f"http://{zone}/"} for zone in zones]}))


def test_an_answer_is_kept_until_its_ttl_runs_out(tmp_path: Path) -> None:
    path = tmp_path / "entry.json"
    write(path, "a", "b")
    resolver = Resolver(path, ttl_s=3.0, now=100.0)
    write(path, "b", "a")
    assert resolver.resolve(102.9) == Entry("a", "http://a")
    assert resolver.resolve(110.0) == Entry("b", "http://b")
    write(path, "a", "b")
    assert resolver.resolve(112.9) == Entry("b", "http://b")
    assert resolver.resolve(113.0) == Entry("a", "http://a")


@pytest.mark.parametrize("content", [b"", b"{", b'{"entries": []}'])
def test_a_table_without_an_answer_leaves_the_last_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "entry.json"
    write(path, "a")
    resolver = Resolver(path, ttl_s=1.0, now=0.0)
    path.write_bytes(content)
    assert resolver.resolve(5.0).zone == "a"


def test_an_empty_table_at_the_start_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "entry.json"
    write(path)
    with pytest.raises(ValueError, match="at least one"):
        Resolver(path, ttl_s=1.0, now=0.0)


def test_routers_and_the_gateways_of_cells_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "entry.json"
    a, b, router = (Entry(zone, f"http://{zone}") for zone in ("a", "b", "edge"))
    write_entries(path, [a, b], [router], {"rz01": [b, a], "rz02": []})
    resolver = Resolver(path, ttl_s=3.0, now=0.0)
    assert (resolver.resolve(1.0), resolver.router(1.0), resolver.gateway_of("rz01", 1.0)) == (a, router, b)
    assert resolver.gateway_of("rz02", 1.0) == resolver.gateway_of("rz09", 1.0) == a
    write_entries(path, [a, b], [router], {"rz01": [a]})
    assert [resolver.gateway_of("rz01", now) for now in (2.9, 3.0)] == [b, a]
