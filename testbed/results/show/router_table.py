"""What directed clients asked a router: how many of their requests did, what it took, and who was told nothing."""

from __future__ import annotations

from rich.text import Text

from testbed.results.show.figures import NONE, share
from testbed.results.show.grid import Grid, NotedGrid
from testbed.results.show.summary import Summary


def questions(summary: Summary) -> NotedGrid | None:
    """None where nobody asks a router. Times in ms, of requests that were told."""
    rows: list[list[str | Text]] = []
    for phase in summary.phases:
        if phase.name == "warmup" or (router := phase.router) is None:
            continue
        asked = router.asked / phase.sent if phase.sent else None
        took = (NONE if ms is None else f"{ms:.1f}" for ms in (router.p50_ms, router.p99_ms))
        unrouted = Text(str(router.unrouted), style="red" if router.unrouted else "")
        rows.append([phase.name, share(asked), str(router.questions), *took, unrouted])
    if not rows:
        return None
    return NotedGrid(Grid(("phase", "asked", "questions", "p50", "p99", "unrouted"), rows))
