"""What a load process says of itself: a line every second, and its counts at the end."""

from __future__ import annotations

from typing import Any

from loadgen.recorder import Recorder

EVERY_S = 1.0


class Statistics:
    """Of one recorder, whose latencies it takes."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._before: dict[str, int] = dict.fromkeys(("sent", "ok", "failed", "unknown"), 0)

    def line(self, t_s: float) -> dict[str, Any]:
        """Counts and percentiles since the last line, and all counts as `total`; null where nothing came."""
        recorder, before = self._recorder, self._before
        total = {"sent": recorder.sent} | {name: recorder.outcomes[name] for name in ("ok", "failed", "unknown")}
        latencies_s, lags_s = recorder.take()
        self._before = total
        return {
            "stats": {
                "t": t_s,
                **{name: count - before[name] for name, count in total.items()},
                "p99_ms": _p99_ms(latencies_s),
                "lag_p99_ms": _p99_ms(lags_s),
                "total": total,
            }
        }

    def end(self, requests: int, failures: int) -> dict[str, Any]:
        """With Locust's own counts of both."""
        return {
            "done": {
                "requests": requests,
                "failures": failures,
                "sent": self._recorder.sent,
                "unfinished": self._recorder.unfinished,
                "own_events": self._recorder.own_events,
                "own_failures": self._recorder.own_failures,
            }
        }


def _p99_ms(values_s: list[float]) -> float | None:
    return sorted(values_s)[int(len(values_s) * 0.99)] * 1e3 if values_s else None
