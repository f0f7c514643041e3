"""A comparison as files: `figures.parquet`, `differences.parquet` and `comparison.html`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from testbed.results.compare.comparison import Comparison
from testbed.results.compare.html.page import page

_FIGURES = pa.schema(
    {"variant": pa.string(), "run_dir": pa.string(), "seed": pa.int64(), "metric": pa.string(), "unit": pa.string()}
    | {"value": pa.float64(), "machines": pa.string()}
)
_DIFFERENCES = pa.schema(
    {"metric": pa.string(), "better": pa.string(), "worse": pa.string(), "p": pa.float64()}
    | {"distinguishable": pa.bool_(), "more_runs_to_tell": pa.int64(), "apart": pa.float64()}
)


def write(comparison: Comparison, folder: Path) -> None:
    """A row for each figure of each run that counts (infinite: never recovered), and one for each pair of variants by
    each metric, and the page. Raises OSError if they cannot be written."""
    figures = [
        {"variant": variant.name, "run_dir": str(run.run_dir), "seed": run.seed}
        | {"metric": metric.name, "unit": metric.unit, "value": value}
        | {"machines": " + ".join(run.machines)}
        for variant in comparison.variants
        for run in variant.runs
        for metric, value in run.figures.items()
    ]
    differences = [
        {"metric": ranking.metric.name, "better": each.better, "worse": each.worse, "p": each.p}
        | {"distinguishable": each.distinguishable, "more_runs_to_tell": each.more_runs, "apart": each.apart}
        for ranking in comparison.rankings
        for each in ranking.differences
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(figures, _FIGURES), folder / "figures.parquet")
    pq.write_table(pa.Table.from_pylist(differences, _DIFFERENCES), folder / "differences.parquet")
    (folder / "comparison.html").write_text(page(comparison))
