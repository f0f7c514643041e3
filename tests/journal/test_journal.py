"""The disk of a store's replica: what a crash leaves of it, and what no crash does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.consensus.log import Entry, Snapshot
from testbed.consensus.membership import Membership
from testbed.consensus.outputs import Write
from testbed.consensus.storage import Stored
from testbed.journal.journal import Damaged, Journal
from testbed.workloads.store.commands import Put
from testbed.workloads.store.encoding import Json

MEMBERS = Membership(("a", "b", "c"))
FIRST = Stored.nothing(MEMBERS)


def put(index: int, term: int = 1) -> Entry:
    return Entry(index, term, Put(f"id-{index}", f"key-{index}", f"value {index} é"))


def write(*indexes: int, term: int = 1, snapshot: Snapshot | None = None) -> Write:
    return Write(0, term, "a", tuple(put(index, term) for index in indexes), snapshot)


def written(folder: Path, batches: Sequence[Sequence[Write]]) -> Stored:
    journal = Journal(folder, FIRST, Json())
    for writes in batches:
        journal.append(writes)
    journal.close()
    return journal.stored


def opened(folder: Path) -> Stored:
    journal = Journal(folder, FIRST, Json())
    journal.close()
    return journal.stored


def test_what_is_written_is_there_when_the_journal_is_opened_again(tmp_path: Path) -> None:
    change = Write(0, 3, None, (Entry(3, 3, None), Entry(4, 3, Membership(("a", "b"), ("c",)))), None)
    stored = written(tmp_path, [[write(1)], [write(2, 3), write(3, 4, term=2)], [change]])
    assert stored.entries == (put(1), put(2), Entry(3, 3, None), Entry(4, 3, Membership(("a", "b"), ("c",))))
    assert opened(tmp_path) == stored


def test_a_snapshot_takes_the_place_of_the_entries_that_it_stands_for(tmp_path: Path) -> None:
    before = written(tmp_path, [[write(*range(1, 200))]])
    size = (tmp_path / "journal").stat().st_size
    snapshot = Snapshot(198, 1, MEMBERS, {"values": {"k": "v"}, "ids": ["id-1"]})
    journal = Journal(tmp_path, FIRST, Json())
    journal.append([Write(0, 1, "a", (), snapshot)])
    journal.append([write(200)])
    journal.close()
    assert before.snapshot.index == 0
    assert opened(tmp_path) == Stored(1, "a", snapshot, (put(199), put(200)))
    assert (tmp_path / "journal").stat().st_size < size / 10


@given(cut=st.integers(min_value=1))
def test_a_torn_last_record_is_cut_off_and_all_before_it_stays(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("disk")
    before = written(folder, [[write(1)], [write(2)]])
    whole = (folder / "journal").read_bytes()
    written(folder, [[write(3)]])
    data = (folder / "journal").read_bytes()
    torn = data[: len(whole) + cut % (len(data) - len(whole))]
    (folder / "journal").write_bytes(torn)
    journal = Journal(folder, FIRST, Json())
    assert journal.stored == before
    assert journal.cut_off_bytes == len(torn) - len(whole)
    journal.append([write(3, term=2)])
    journal.close()
    assert opened(folder).entries == (put(1), put(2), put(3, 2))


@given(at=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_last_record_of_which_not_all_blocks_were_written_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("disk")
    before = written(folder, [[write(1)], [write(2)]])
    whole = len((folder / "journal").read_bytes())
    written(folder, [[write(3)]])
    data = bytearray((folder / "journal").read_bytes())
    data[whole + at % (len(data) - whole)] ^= 1 << bit
    (folder / "journal").write_bytes(data)
    assert opened(folder) == before


@given(at=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_replica_refuses_to_start_on_a_damaged_older_record(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("disk")
    written(folder, [[write(1)], [write(2)]])
    older = len((folder / "journal").read_bytes())
    written(folder, [[write(3)]])
    data = bytearray((folder / "journal").read_bytes())
    data[at % older] ^= 1 << bit
    (folder / "journal").write_bytes(data)
    with pytest.raises(Damaged, match=r"journal: the record at byte [0-9]+ is damaged"):
        Journal(folder, FIRST, Json())
    assert (folder / "journal").read_bytes() == data, "what is there must not be touched: somebody may still read it"
