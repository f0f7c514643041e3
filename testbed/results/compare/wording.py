"""How a comparison is told, in a terminal and on its page."""

from __future__ import annotations

from math import isinf

from testbed.results.compare.comparison import SMALLEST, Comparison, Confounded, Place, Unlike, Variant
from testbed.results.compare.rank_test import LEVEL, POWER
from testbed.results.compare.runs import Unit
from testbed.results.show.figures import milliseconds, seconds, share

_LEAST_P = 1e-4
METHOD = (
    f"Real is what an exact rank-sum test (unpaired, two-sided) tells apart at {LEVEL:g}, corrected by Holm for all "
    "pairs of variants in a table; each table has that level for itself. Alike are also medians less than "
    f"{SMALLEST * 100:g} % apart. So many more runs of each would tell a "
    f"difference as large as the one seen, if the spread stays as it is, {POWER * 10:g} times in 10."
)


def settings(variant: Variant, most: int) -> list[str]:
    """Where it differs from others: the first few, and how many more."""
    differing = [f"{path}={value}" for path, value in variant.settings.items()]
    more = [f"and {len(differing) - most} more"] if len(differing) > most else []
    return differing[:most] + more


def of_run(variant: Variant) -> str:
    runs = len(variant.runs)
    seeds = ", ".join(str(run.seed) for run in variant.runs)
    return f"{runs} run{'' if runs == 1 else 's'}{f', seeds {seeds}' if seeds else ''}"


def warnings(comparison: Comparison) -> list[str]:
    """What else than the variants may make the differences."""
    found = [_unlike(each) for each in comparison.unlike]
    return found if comparison.confounded is None else [*found, _confounded(comparison.confounded)]


def _unlike(what: Unlike) -> str:
    """That runs are put together which were not made alike."""
    parts = [
        f"{value} ({', '.join(f'{number} of {variant}' for variant, number in by_variant.items())})"
        for value, by_variant in what.runs.items()
    ]
    return f"not alike in all runs, and so perhaps what makes the difference: {what.what}: {'; '.join(parts)}"


def _confounded(what: Confounded) -> str:
    """That variants did not have the same machines."""
    parts = [
        f"{variant} on {', '.join(f'{machines} ({times})' for machines, times in sorted(runs.items()))}"
        for variant, runs in what.runs.items()
    ]
    return (
        f"not on the same machines, and so perhaps what makes the difference: {'; '.join(parts)}. "
        "More seeds, or fewer runs side by side, bring every variant to every machine"
    )


def verdict(place: Place) -> str:
    difference = place.to_best
    if difference is None:
        return ""
    if difference.distinguishable:
        return f"worse (p {max(difference.p, _LEAST_P):.2g})"
    if not difference.by_chance:
        return f"alike: {difference.apart * 100:.1f} % apart"
    if difference.more_runs is None:
        return "not distinguishable"
    return f"not distinguishable; {difference.more_runs} more runs of each would tell"


def held(runs: tuple[int, int]) -> str:
    return f"{runs[0]} of {runs[1]}"


def figure(value: float, unit: Unit) -> str:
    if isinf(value):
        return "never"
    match unit:
        case "s":
            return seconds(value)
        case "ms":
            return milliseconds(value)
        case "share":
            return share(value)
        case _:
            return f"{value:g}"
