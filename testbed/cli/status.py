"""`testbed status`: the clusters that are up, and how they are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from testbed.cli.clusters import ClusterName, clusters, meant
from testbed.cli.guests import guest_lines
from testbed.cli.terminal import console
from testbed.emulation.driver import registry
from testbed.emulation.driver.channel import Declined, Unreachable, ask
from testbed.emulation.driver.registry import Registered
from testbed.results.show.grid import Grid


def status(
    name: ClusterName = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, on standard output.")] = False,
) -> None:
    """Show nodes, pods, proxies, load and faults of the clusters that are up."""
    there = [meant(name)] if name is not None else clusters() or [meant(None)]
    answers = [(cluster, _answer(cluster)) for cluster in there]
    if as_json:
        found = [
            {"name": each.name, "scenario": each.scenario, "pid": each.pid, "run_dir": each.run_dir, **answer}
            for each, answer in answers
        ]
        sys.stdout.buffer.write(orjson.dumps({"clusters": found}, option=orjson.OPT_INDENT_2) + b"\n")
        return
    out = console()
    for cluster, answer in answers:
        _show(cluster, answer, out)


def _answer(cluster: Registered) -> dict[str, Any]:
    """Nobody listens yet while Ray starts, or any more when all is kept."""
    try:
        return ask(registry.socket_of(cluster.name), "status")
    except Unreachable:
        return {"coming_up": "starting, or all but down"}
    except Declined as declined:
        return {"coming_up": str(declined)}


def _show(cluster: Registered, answer: dict[str, Any], out: Console) -> None:
    if "coming_up" in answer:
        out.print(f"{cluster.name}: {answer['coming_up']}", soft_wrap=True, markup=False)
        return
    lines = [f"{cluster.name} is up for {_duration(answer['up_s'])} (scenario {cluster.scenario}, {cluster.run_dir})"]
    nodes = [(node["name"], node["zone"], _ready(node["ready"]), str(node["pods"])) for node in answer["nodes"]]
    pods = [
        (
            pod["name"],
            pod["node"] or "-",
            _pod_state(pod),
            str(pod["restarts"]),
            (pod["proxy"] or "-").partition(":")[0],
        )
        for pod in answer["pods"]
    ]
    proxies = [pod["proxy"] for pod in answer["pods"] if pod["proxy"] is not None]
    for line in (
        *lines,
        *Grid(("node", "zone", "ready", "pods"), nodes).lines(out.width),
        *Grid(("pod", "node", "state", "restarts", "proxy"), pods).lines(out.width),
        f"proxies in sync: {proxies.count('in sync')} of {len(proxies)}",
        f"load: {_load(answer['load'])}",
        *_guests(answer["locust"]),
        *(
            f"fault {fault['name']}: for {fault['for_s']:.1f} s by now, hit {', '.join(fault['victims']) or 'nothing'}"
            for fault in answer["faults"]
        ),
        *([] if answer["faults"] else ["faults: none in force"]),
    ):
        out.print(line, soft_wrap=True, markup=False)


def _guests(locust: dict[str, dict[str, Any]]) -> Iterator[str]:
    lines, pages, machines = ({zone: its[key] for zone, its in locust.items()} for key in ("line", "page", "machine"))
    return guest_lines(lines, pages, machines)


def _ready(condition: str) -> str:
    return {"True": "yes", "False": "no"}.get(condition, condition)


def _pod_state(pod: dict[str, Any]) -> str:
    if pod["phase"] == "Running":
        return "ready" if pod["ready"] else f"not ready{': ' if pod['reason'] else ''}{pod['reason']}"
    return f"{pod['phase']}{': ' if pod['reason'] else ''}{pod['reason']}"


def _load(load: dict[str, Any] | None) -> str:
    if load is None:
        return "none is sent"
    rate = sum(load["requests_per_s"].values())
    p99 = "" if load["p99_ms"] is None else f", p99 {load['p99_ms']:.1f} ms"
    since = "" if load["for_s"] is None else f" for {load['for_s']:.0f} s"
    return f"{rate:.0f} requests/s{p99}{since}; not ok so far {load['not_ok']}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
