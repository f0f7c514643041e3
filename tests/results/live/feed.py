"""Records as load generators and proxies write them while a run goes on: an outage of one of three zones."""

from __future__ import annotations

from pathlib import Path

import orjson

from loadgen import records
from testbed.control.views.envoy import access_log
from testbed.results.show.html.counted import Happening
from testbed.results.show.live.run import LiveRun
from testbed.results.tables.pods import PodIdentity
from testbed.scenario import load_scenario

SCENARIO = Path(__file__).parents[3] / "scenarios" / "zone-outage.yaml"
ZONES = ("east-a", "east-b", "east-c")
T0_S = 1000.0
"""When the load began, of the monotonic clock."""
LOST_S, HEALED_S, MOVED_S = 12.0, 25.0, 14.0
TIME_OUT_S = 1.0
PODS = tuple(
    PodIdentity(f"{service}-{zone}", service, f"{zone}-1", zone, "east", "", f"10.{index}.0.{number}", 0.0)
    for index, zone in enumerate(ZONES)
    for number, service in enumerate(("gateway", "web"))
)


class Feed:
    """Writes what belongs to each second; clients of east-a lose what they send from `LOST_S` until `MOVED_S`."""

    def __init__(self, logs: Path, per_s: int = 20) -> None:
        self._logs = logs
        self._per_s = per_s
        self._late: list[tuple[float, str, dict[str, object]]] = []
        logs.mkdir(parents=True, exist_ok=True)

    def second(self, start_s: int) -> None:
        lines: dict[str, list[tuple[float, dict[str, object]]]] = {zone: [] for zone in ZONES}
        calls: dict[str, list[dict[str, object]]] = {zone: [] for zone in ZONES}
        for zone in ZONES:
            for number in range(self._per_s):
                at_s = start_s + number / self._per_s
                lost = zone == "east-a" and LOST_S <= at_s < MOVED_S
                away = zone == "east-a" and MOVED_S <= at_s < HEALED_S
                entry = "east-b" if away else zone
                id_ = f"{zone}-{at_s:.3f}"
                sent = {records.KIND: records.SENT, records.ID: id_, records.NAME: "GET /", records.METHOD: "GET"}
                when = {records.INTENDED_S: T0_S + at_s, records.SENT_S: T0_S + at_s + 0.0001}
                lines[zone].append((at_s, {**sent, **when, records.PATH: "/", records.ENTRY_ZONE: entry}))
                took_s = TIME_OUT_S if lost else 0.004 + number % 7 / 1000
                finished = {
                    records.KIND: records.FINISHED,
                    records.ID: id_,
                    records.FINISHED_S: T0_S + at_s + took_s,
                    records.STATUS: None if lost else 200,
                    records.OUTCOME: "unknown" if lost else "ok",
                    records.ERROR: "timed out" if lost else None,
                }
                self._late.append((at_s + took_s, zone, finished))
                if not lost:
                    calls[entry].append(_call(entry, zone if not away else entry))
        due = [each for each in self._late if each[0] < start_s + 1]
        self._late = [each for each in self._late if each[0] >= start_s + 1]
        for at_s, zone, line in due:
            lines[zone].append((at_s, line))
        for zone in ZONES:
            ordered = [line for _, line in sorted(lines[zone], key=lambda each: each[0])]
            self._append(f"{zone}.requests.jsonl", ordered)
            self._append(f"gateway-{zone}.access.jsonl", calls[zone])

    def _append(self, name: str, lines: list[dict[str, object]]) -> None:
        with (self._logs / name).open("ab") as file:
            file.writelines(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)


def _call(source: str, destination: str) -> dict[str, object]:
    address = next(pod.ip for pod in PODS if pod.pod == f"web-{destination}")
    ends = {access_log.POD: f"gateway-{source}", access_log.UPSTREAM_HOST: f"{address}:15006"}
    return {access_log.KIND: access_log.GATEWAY, **ends, access_log.STATUS: 200}


def live_run(logs: Path) -> LiveRun:
    return LiveRun(load_scenario(SCENARIO), logs)


class Played:
    """A run played second by second: what is written in each, and what is told of it."""

    def __init__(self, logs: Path) -> None:
        self.live = live_run(logs)
        self._feed = Feed(logs)
        self.live.begins(T0_S, 40.0)
        self.live.load_starts(0.0)
        self.live.doing("sending load", "running")
        self.live.pods(PODS)

    def second(self, start_s: int) -> None:
        self._feed.second(start_s)
        if start_s == LOST_S:
            self.live.applied("lose-east-a", LOST_S, ("east-a-1",), instant=False)
        if start_s == HEALED_S:
            self.live.healed("lose-east-a", HEALED_S)
        self.live.happened(
            Happening(t_s, source, kind, name, reason, "{}")
            for t_s, source, kind, name, reason in (
                (12.4, "control-plane", "Node", "east-a-1", "NodeNotReady"),
                (12.5, "control-plane", "EndpointSlice", "web", "EndpointsChanged"),
                (13.5, "clients/east-a", "Entry", "east-a", "EntryChanged"),
            )
            if start_s <= t_s < start_s + 1
        )
        self.live.take(T0_S + start_s + 1)
