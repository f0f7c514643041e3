"""The metrics that an expectation can bound, and the unit of each. How they are measured is `results.measure`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from testbed.documents.quantities import DURATION, PERCENTAGE, RATE, VOLUME, Quantity, shown


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number without a unit."""

    def parse(self, value: object) -> float:
        """Raises ValueError."""
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 10**15:
            raise ValueError(f"must be a whole number, 0 or more, not {shown(value)}")
        return float(value)

    def format(self, value: float) -> int:
        return int(value)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": 0, "examples": [0, 10]}


MetricName = Literal[
    "success_rate",
    "latency_p50",
    "latency_p90",
    "latency_p95",
    "latency_p99",
    "latency_p999",
    "time_to_recover",
    "same_zone_share",
    "cross_zone_bytes",
    "partition_local_share",
    "forwards",
    "leaks",
    "questions",
    "unrouted",
    "routed_success_rate",
    "request_rate",
    "errors",
    "lost_writes",
    "stale_reads",
    "double_writes",
    "blocked_time",
    "blocked_elsewhere",
]

OF_A_SERVICE: tuple[MetricName, ...] = ("same_zone_share", "partition_local_share", "time_to_recover")
"""They can be those of the calls to one service, or of the requests for it."""
OF_CELLS: tuple[MetricName, ...] = ("partition_local_share", "forwards", "leaks")
OF_A_STORE: tuple[MetricName, ...] = ("lost_writes", "stale_reads", "double_writes")
"""Only where clients write and read a store's keys; of the whole run, as what is read last decides."""
OF_MOVED_DATA: tuple[MetricName, ...] = ("blocked_time", "blocked_elsewhere")
"""Only where operations promote a store's replicas or forbid writes; of all steps of the run together."""
OF_A_ROUTER: tuple[MetricName, ...] = ("questions", "unrouted", "routed_success_rate")
"""Only where clients ask one for their cell."""

METRICS: dict[str, Quantity | Count] = {
    "success_rate": PERCENTAGE,
    "latency_p50": DURATION,
    "latency_p90": DURATION,
    "latency_p95": DURATION,
    "latency_p99": DURATION,
    "latency_p999": DURATION,
    "time_to_recover": DURATION,
    "same_zone_share": PERCENTAGE,
    "cross_zone_bytes": VOLUME,
    "partition_local_share": PERCENTAGE,
    "forwards": PERCENTAGE,
    "leaks": Count(),
    "questions": PERCENTAGE,
    "unrouted": PERCENTAGE,
    "routed_success_rate": PERCENTAGE,
    "request_rate": RATE,
    "errors": Count(),
    "lost_writes": Count(),
    "stale_reads": Count(),
    "double_writes": Count(),
    "blocked_time": DURATION,
    "blocked_elsewhere": Count(),
}
