"""States in which a cluster can be after some short terms, made without simulating them: things go wrong with logs that
differ, and a schedule that begins with equal ones spends most of its time on making them differ."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from testbed.consensus.log import Entry, Log
from testbed.consensus.membership import Membership
from testbed.consensus.storage import Stored


def equal(names: tuple[str, ...]) -> dict[str, Stored]:
    return {name: Stored.nothing(Membership(names)) for name in names}


def divergent(names: tuple[str, ...], random: Random) -> dict[str, Stored]:
    """In each term, one who can win is elected by some, adds entries, and reaches some others with some of them."""
    disks = equal(names)
    for term in range(1, random.randint(2, 6)):
        leader = random.choice(names)
        mine = disks[leader]
        last = _log(mine)
        voters = [name for name in names if _log(disks[name]).is_behind(last.last_term, last.last_index)]
        voters = [name for name in voters if name == leader or random.random() < 0.8]
        if 2 * len(voters) <= len(names):
            continue
        for name in voters:
            disks[name] = replace(disks[name], term=term, vote=leader)
        added = [Entry(last.last_index + 1, term, None)]
        added += [
            Entry(last.last_index + 2 + number, term, f"{term}.{number}") for number in range(random.randint(0, 2))
        ]
        entries = mine.entries + tuple(added)
        disks[leader] = replace(disks[leader], entries=entries)
        for name in names:
            if name != leader and random.random() < 0.4:
                disks[name] = _told(disks[name], term, entries[: random.randint(1, len(entries))])
    return disks


def _told(disk: Stored, term: int, entries: tuple[Entry, ...]) -> Stored:
    """After having got the entries from the leader of that term."""
    log = _log(disk)
    if missing := log.missing_of(entries):
        log.put(missing)
    return replace(disk, term=term, vote=disk.vote if disk.term == term else None, entries=log.entries)


def _log(disk: Stored) -> Log:
    return Log(disk.snapshot, disk.entries)
