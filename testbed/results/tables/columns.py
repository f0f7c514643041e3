"""Arrow columns as arrays that numpy can count with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from testbed.results.tables.facts import AppliedFault

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.signedinteger]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Asked:
    """What each request asked a router, and what that took."""

    questions: Codes
    took_ms: Floats
    """NaN where there were none."""
    unrouted: Mask
    """It was led to no gateway, having asked."""

    @classmethod
    def of(cls, table: pa.Table) -> Asked | None:
        """None where nobody asks, or the columns about it were not read."""
        if "questions" not in table.column_names or pc.all(pc.is_null(table["questions"])).as_py():
            return None
        questions = floats(table["questions"])
        counted = np.nan_to_num(questions).astype(np.int64)
        return cls(counted, floats(table["router_ms"]), (counted > 0) & (codes(table["entry_zone"])[0] < 0))

    def where(self, chosen: Mask | Codes) -> Asked:
        return Asked(self.questions[chosen], self.took_ms[chosen], self.unrouted[chosen])


@dataclass(frozen=True, slots=True)
class Requests:
    """The columns of `requests` that time and outcome need, as arrays. `finished_s` is infinite for no finish."""

    intended_s: Floats
    counted_s: Floats
    """Where it belongs: its intended time, or the moment of the first fault that came while it was in flight."""
    sent_s: Floats
    finished_s: Floats
    latency_ms: Floats
    ok: Mask
    failed: Mask
    asked: Asked | None = None
    """None where clients ask no router."""

    @classmethod
    def of(cls, table: pa.Table, faults: Sequence[AppliedFault] = ()) -> Requests:
        outcome, names = codes(table["outcome"])
        finished_s = floats(table["finished_s"])
        finished_s = np.where(np.isnan(finished_s), np.inf, finished_s)
        intended_s = floats(table["intended_s"])
        return cls(
            intended_s,
            counted_from(intended_s, finished_s, faults),
            floats(table["sent_s"]),
            finished_s,
            floats(table["latency_ms"]),
            outcome == (names.index("ok") if "ok" in names else -1),
            outcome == (names.index("failed") if "failed" in names else -1),
            Asked.of(table),
        )

    def __len__(self) -> int:
        return len(self.intended_s)

    def where(self, chosen: Mask | Codes) -> Requests:
        """Those of them, by mask or by row."""
        columns = {each.name: getattr(self, each.name)[chosen] for each in fields(self) if each.name != "asked"}
        return Requests(**columns, asked=None if self.asked is None else self.asked.where(chosen))


def counted_from(intended_s: Floats, finished_s: Floats, faults: Sequence[AppliedFault]) -> Floats:
    """Where requests belong; see `Requests.counted_s`."""
    counted_s = intended_s.copy()
    for fault in sorted(faults, key=lambda fault: -fault.applied_s):
        counted_s[(intended_s < fault.applied_s) & (finished_s >= fault.applied_s)] = fault.applied_s
    return counted_s


def floats(column: pa.ChunkedArray) -> Floats:
    """A numeric column with NaN for null."""
    values: Floats = column.cast(pa.float64()).to_numpy()
    return values


def nullable(values: Floats) -> pa.Array:
    """A numeric column with null for NaN."""
    return pa.array(values, from_pandas=True)


def same(a: tuple[Codes, Sequence[str]], b: tuple[Codes, Sequence[str]]) -> Mask:
    """Whether two columns, coded as `codes` does it, hold the same value, row by row; never for null."""
    (left, left_values), (right, right_values) = a, b
    # Values may repeat where they were translated: each stands for its first code.
    first = {value: code for code, value in reversed(list(enumerate(left_values)))}
    # One more entry, which code -1 finds, stands for null.
    here = np.array([*(first[value] for value in left_values), -1], dtype=np.int64)
    there = np.array([*(first.get(value, -2) for value in right_values), -2], dtype=np.int64)
    equal: Mask = here[left] == there[right]
    return equal


def named(column: Codes, values: Sequence[str]) -> Mask:
    """Whether a column, coded as `codes` does it, holds a value that is neither null nor empty."""
    found: Mask = np.array([*(value != "" for value in values), False])[column]
    return found


def codes(column: pa.ChunkedArray) -> tuple[Codes, list[str]]:
    """A dictionary column as codes (-1 for null) into its values."""
    array = column.unify_dictionaries().combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        return np.zeros(0, dtype=np.int32), []
    return array.indices.fill_null(-1).to_numpy(zero_copy_only=False), array.dictionary.to_pylist()


def each(column: pa.ChunkedArray, of: Callable[[str | None], int | None]) -> Codes:
    """`of` every row of a column of strings, asked once for every different one; -1 for None."""
    values, names = codes(column.dictionary_encode())
    return np.array([-1 if found is None else found for found in map(of, [*names, None])], dtype=np.int32)[values]
