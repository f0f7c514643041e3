"""Where calls went in the last seconds, by a sample of what proxies have logged: enough for a picture, and cheap."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from testbed.control.views.envoy import access_log
from testbed.results.show.html.counted import Flow
from testbed.results.show.live.requests import RECENT_S
from testbed.results.show.live.tail import Tail
from testbed.results.tables.pods import PodIdentity, Pods

SAMPLE_BYTES = 160_000
"""Of all logs together at a time: some hundred lines. Who reads all of them needs a tenth of a core."""
_LEAST_BYTES = 4_000
_SUFFIX = ".access.jsonl"
_CALLS = (access_log.OUTBOUND, access_log.GATEWAY)

_Counts = dict[tuple[str, str], tuple[float, float]]


class CallsSoFar:
    """`take` reads what is new of the logs in a folder, once it is `told` which pods there are."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._tails: dict[str, Tail] = {}
        self._pods = Pods(())
        self._recent: deque[tuple[float, _Counts, dict[str, float]]] = deque()

    def told(self, pods: Iterable[PodIdentity]) -> None:
        self._pods = Pods(pods)

    def take(self, now_s: float) -> None:
        counts: _Counts = {}
        by_node: dict[str, float] = {}
        for pod in self._pods.identities:
            self._tails.setdefault(pod.pod, Tail(self._logs / f"{pod.pod}{_SUFFIX}"))
        each_bytes = max(_LEAST_BYTES, SAMPLE_BYTES // max(len(self._tails), 1))
        for tail in self._tails.values():
            lines, weight = tail.sample(each_bytes)
            for line in lines:
                try:
                    self._line(line, weight, now_s, counts, by_node)
                except (KeyError, TypeError, ValueError, AttributeError):
                    continue
        self._recent.append((now_s, counts, by_node))
        while self._recent[0][0] <= now_s - RECENT_S:
            self._recent.popleft()

    def recent(self) -> tuple[tuple[Flow, ...], Mapping[str, int]]:
        """Calls from zone to zone, the largest flow first, and the calls to each node."""
        sums: _Counts = {}
        nodes: dict[str, float] = {}
        for _, counts, by_node in self._recent:
            for pair, (calls, failed) in counts.items():
                before = sums.get(pair, (0.0, 0.0))
                sums[pair] = before[0] + calls, before[1] + failed
            for node, calls in by_node.items():
                nodes[node] = nodes.get(node, 0.0) + calls
        flows = [Flow(*pair, round(calls), round(failed)) for pair, (calls, failed) in sums.items()]
        order = sorted(flows, key=lambda flow: (-flow.calls, flow.source, flow.destination))
        return tuple(order), {node: round(calls) for node, calls in nodes.items()}

    def _line(self, line: Any, weight: float, now_s: float, counts: _Counts, by_node: dict[str, float]) -> None:
        if line[access_log.KIND] not in _CALLS:
            return
        source = self._pods.named(line[access_log.POD])
        destination = self._pods.at(line[access_log.UPSTREAM_HOST], now_s)
        if source is None or destination is None:
            return
        of, to = self._pods.identities[source], self._pods.identities[destination]
        status = line[access_log.STATUS]
        failed = weight if not status or int(status) >= access_log.FAILED_STATUS else 0.0
        before = counts.get((of.zone, to.zone), (0.0, 0.0))
        counts[of.zone, to.zone] = before[0] + weight, before[1] + failed
        by_node[to.node] = by_node.get(to.node, 0.0) + weight
