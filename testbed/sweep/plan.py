"""Which run of a sweep is next. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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

    `folder` is relative to that of the sweep. `took_s` is from start to end of the command.
    """

    run: Run
    verdict: str
    folder: str | None
    took_s: float
    why: str = ""

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


def left_s(runs_left: int, ended: Sequence[Ended], guess_s: float) -> float:
    """How long so many runs will take: as those that went to their end did, in the median."""
    took_s = sorted(each.took_s for each in ended if each.is_complete or each.verdict == "invalid")
    return runs_left * (took_s[len(took_s) // 2] if took_s else guess_s)
