"""Which run of a sweep is next, and where. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

Machines = tuple[str, ...]
"""Names of those that carry one run at a time: a lane. None at all where there is but one way to run."""

TRIES = 2
"""A run that is invalid, or that ends without a result, is repeated once."""


@dataclass(frozen=True, slots=True)
class Run:
    """A variant with one seed."""

    variant: str
    seed: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a try of a run ended. `verdict` is that of `results.judge`, or `none` where there is no result: `why`.

    `folder` is relative to that of the sweep. `took_s` is from start to end of the command. `machines` are the lane.
    """

    run: Run
    verdict: str
    folder: str | None
    took_s: float
    why: str = ""
    machines: Machines = ()

    @property
    def is_complete(self) -> bool:
        return self.verdict in ("passed", "failed")


def rounds(variants: Sequence[str], seeds: Sequence[int]) -> Iterator[list[Run]]:
    """Each round has every variant with one seed, so that a slow minute of the machine hits all; each begins with
    another one, so that none has always the same place."""
    for number, seed in enumerate(seeds):
        first = number % len(variants)
        yield [Run(variant, seed) for variant in (*variants[first:], *variants[:first])]


def due(variants: Sequence[str], seeds: Sequence[int], ended: Sequence[Ended]) -> list[Run]:
    """What is left to run, in order, as far as is known by now: what was invalid is run again at the end of its round.

    Tries that were interrupted do not count.
    """
    complete = {each.run for each in ended if each.is_complete}
    in_vain = [each.run for each in ended if not each.is_complete and each.verdict != "interrupted"]
    left: list[Run] = []
    for round_ in rounds(variants, seeds):
        open_ = [run for run in round_ if run not in complete]
        left += sorted(
            (run for run in open_ if in_vain.count(run) < TRIES), key=lambda run: in_vain.count(run)
        )  # stable: those that were not tried yet keep their order
    return left


def assigned(
    lanes: Sequence[Machines], due: Sequence[Run], under_way: Mapping[Machines, Run], ended: Sequence[Ended]
) -> dict[Machines, list[Run]]:
    """What each of the lanes is to run, in order, as far as is known by now; `under_way` is what runs in which.

    Each run, in the order in which they are due, goes to the lane that its variant has visited least, so that a slow
    machine hits all variants alike, and of several to the one with the least to do. What is repeated goes elsewhere
    than before, if it can: its machines may have been the reason.
    """
    counted = [each for each in ended if each.verdict != "interrupted"]
    visits = Counter((each.run.variant, each.machines) for each in counted)
    visits.update((run.variant, lane) for lane, run in under_way.items())
    tried = {(each.run, each.machines) for each in counted}
    queues: dict[Machines, list[Run]] = {lane: [] for lane in lanes}
    busy = set(under_way.values())
    for run in due:
        if run in busy:
            continue
        others = [lane for lane in lanes if (run, lane) not in tried]
        to_do = {lane: len(queues[lane]) + (lane in under_way) for lane in lanes}
        lane = min(others or lanes, key=lambda lane: (visits[run.variant, lane], to_do[lane]))  # else the first
        visits[run.variant, lane] += 1
        queues[lane].append(run)
    return queues


def left_s(runs_left: int, ended: Sequence[Ended], guess_s: float, lanes: int = 1) -> float:
    """How long so many runs will take, so many at a time: as those that went to their end did, in the median."""
    took_s = sorted(each.took_s for each in ended if each.is_complete or each.verdict == "invalid")
    return ceil(runs_left / lanes) * (took_s[len(took_s) // 2] if took_s else guess_s)
