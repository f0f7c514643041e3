"""A trace as text: one axis of time, a line for each step, and what the proxies knew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import orjson
import yaml
from rich.text import Text

from testbed.control.mesh.traffic import DEFAULT_ROUTE
from testbed.results.measure.pushed import Told, Version
from testbed.results.measure.trace import FLAGS, Step, Trace
from testbed.results.show.figures import NONE, milliseconds, seconds
from testbed.results.show.grid import wrapped
from testbed.results.tables.facts import named

_BAR = 20
_INDENT = "  "


def render(trace: Trace, width: int, *, with_config: bool = False) -> Iterator[Text]:
    """Lines of at most `width`; times are milliseconds after the intended time of the request.

    With the configuration that its callers' proxies went by, whose lines may be longer.
    """
    request = trace.request
    zero_s = request["intended_s"]
    what = " ".join(filter(None, (request["method"], request["path"]))) or request["name"]
    ended = request["outcome"] if request["error"] is None else f"{request['outcome']}: {request['error']}"
    title = f"{request['request_id']}  {what}  at {zero_s:.3f} s, {ended}"
    yield from wrapped(Text(title, style="bold"), width, "", _INDENT)
    rows = [(zero_s, request["latency_ms"], _client(request))]
    rows += [(step.start_s, step.duration_ms, f"{_INDENT * (step.depth + 1)}{_called(step)}") for step in trace.steps]
    ends_ms = [(start_s - zero_s) * 1e3 + (took_ms or 0.0) for start_s, took_ms, _ in rows]
    span_ms = max([*ends_ms, 0.001])
    head = f"{'at ms':>9} {'took ms':>9}  "
    yield Text(f"{head}{'0 to ' + milliseconds(span_ms):{_BAR}}".rstrip(), style="dim")
    for start_s, took_ms, text in rows:
        at_ms = (start_s - zero_s) * 1e3
        took = NONE if took_ms is None else f"{took_ms:.2f}"
        left = f"{at_ms:>9.2f} {took:>9}  {_bar(at_ms, took_ms, span_ms)}  "
        deep = " " * (len(text) - len(text.lstrip()))
        yield from wrapped(Text(text.lstrip()), width, left + deep, " " * len(left) + deep + _INDENT)
    if not trace.steps:
        yield Text(f"{_INDENT}no proxy has a record of it", style="dim")
    for proxy, versions in trace.versions.items():
        told = f"{proxy} knew {'; '.join(_version(each, trace) for each in versions)}"
        yield from wrapped(Text(told, style="dim"), width, "", _INDENT)
    for each in trace.told:
        known = f"{each.proxy} had endpoints of {each.service}: {_endpoints(each)}"
        yield from wrapped(Text(known, style="dim"), width, "", _INDENT)
        if with_config:
            yield from _config(each)


def _endpoints(told: Told) -> str:
    priorities = sorted({group.priority for group in told.endpoints})
    found = []
    for priority in priorities:
        pods = named([pod for group in told.endpoints if group.priority == priority for pod in group.pods])
        found.append(f"priority {priority}: {pods}" if len(priorities) > 1 else pods)
    ejected = [f"ejected by it: {named(told.ejected)}"] if told.ejected else []
    return "; ".join([*found, *ejected]) or "none"


def _config(told: Told) -> Iterator[Text]:
    """As it was pushed, but for endpoints, which are pods here."""
    groups = [
        {key: value for key, value in asdict(group).items() if value not in (None, "")} for group in told.endpoints
    ]
    found = {f"route of {told.virtual_host}": told.route, "cluster": told.cluster, "endpoints": groups}
    text = yaml.safe_dump(
        orjson.loads(orjson.dumps({key: value for key, value in found.items() if value})), sort_keys=False, width=120
    )
    for line in text.splitlines():
        yield Text(f"{_INDENT}{line}", style="dim")


def _bar(at_ms: float, took_ms: float | None, span_ms: float) -> str:
    first = min(_BAR - 1, max(0, int(at_ms / span_ms * _BAR)))
    last = min(_BAR, max(first + 1, round((at_ms + (took_ms or 0.0)) / span_ms * _BAR)))
    return f"{' ' * first}{'=' * (last - first)}{' ' * (_BAR - last)}"


def _client(request: dict[str, object]) -> str:
    entry = request["entry_zone"]
    return f"client in {request['origin_zone']}, by the gateway of {entry}" if entry else "client, out of the cluster"


def _called(step: Step) -> str:
    to = _place(step.destination or step.service, step.destination_zone)
    match step.kind:
        case "inbound":
            what = f"{to} is called by {step.source or 'no pod'}"
        case "outbound":
            what = f"{_place(step.source, step.source_zone)} calls {to}"
        case _:
            what = f"failed try of {step.source} at {to}"
    answer = "no answer" if step.status is None else str(step.status)
    why = [f"{flag} ({FLAGS[flag]})" if flag in FLAGS else flag for flag in step.flags]
    tries = [f"{step.attempts} tries"] if step.attempts is not None and step.attempts > 1 else []
    # What is received takes the default route but for cells, where it has another name.
    received = step.kind == "inbound" and step.route == DEFAULT_ROUTE
    route = [f"route {step.route}"] if step.route and not received else []
    return f"{what}: {', '.join([answer, *why, *tries, *route])}"


def _place(name: str | None, zone: str | None) -> str:
    return f"{name or 'nobody'} in {zone}" if zone else name or "nobody"


def _version(version: Version, trace: Trace) -> str:
    first_s = trace.request["intended_s"]
    if version.in_force is None or version.acked_s is None:
        known = f"no {version.type}"
    else:
        known = f"{version.type} {version.in_force} (for {seconds(max(0.0, first_s - version.acked_s))})"
    return known if version.on_its_way is None else f"{known}, while {version.on_its_way} was on its way"
