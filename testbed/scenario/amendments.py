"""What a person adds to a scenario that is up, or changes in it: faults in a file of their own, and the scenario's file
in another version. Both are in the scenario's language, with its errors.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from testbed.documents.problems import Path as DocumentPath
from testbed.documents.problems import Problem, ScenarioError, in_order
from testbed.documents.source import Mark, Source, parse_source
from testbed.faults.timeline import ScheduledFault
from testbed.objects.cluster import Declared
from testbed.scenario.checks.experiment import check_faults
from testbed.scenario.checks.findings import Findings
from testbed.scenario.checks.names import introduce_names
from testbed.scenario.convert import scheduled_faults
from testbed.scenario.defaults import complete
from testbed.scenario.loading import load_source
from testbed.scenario.validation import validate
from testbed.scenario.values import Scenario

FAULTS_BEGIN_WITH = "name: "
_FAULTS: DocumentPath = ("spec", "faults")
_LIVE = ("services", "gateway", "mesh")
"""Keys of `spec` whose objects a control plane can be told anew."""
_PLANS = ("faults", "operations")
_IDLE = (*_PLANS, "expect", "prices", "recovery")
"""Keys of `spec` that say nothing of the cluster itself."""


def faults_of(file: str, text: str, running: Scenario) -> tuple[ScheduledFault, ...]:
    """The faults of a text: one, or a list. `at` counts from now, which is its default; without `for` a fault lasts
    until somebody heals it.

    Raises ScenarioError with all problems at once, where they are written in the text.
    """
    given = parse_source(file, text, FAULTS_BEGIN_WITH)
    single = not isinstance(given.data, list)
    if isinstance(given.data, dict) and "apiVersion" in given.data:
        given.report(("apiVersion",), "this is a scenario; a fault, or a list of faults, is wanted", at_key=True)
    if given.data == []:
        given.report((), "holds no fault")
    if given.problems:
        raise ScenarioError(given.problems)
    source = Source(running.name)
    source.put((), _without_plans(running.resolved), Mark(running.name, 0, 0))
    source.graft((*_FAULTS, 0) if single else _FAULTS, given)
    for index, fault in enumerate(source.value(_FAULTS)):
        if isinstance(fault, dict) and "at" not in fault:
            source.put((*_FAULTS, index, "at"), "0s", Mark(file, 1, 1))
    model, dropped = validate(source)
    if model is not None:
        findings = Findings(source, dropped, Path())
        introduce_names(model, findings)
        check_faults(model, findings, by_hand=True)
    if model is None or source.problems:
        raise ScenarioError([_as_in_the_file(problem, single) for problem in source.problems])
    return scheduled_faults(complete(model, Path()).spec)


def _without_plans(resolved: dict[str, Any]) -> dict[str, Any]:
    """The scenario with one place for a fault, and nothing that speaks of faults."""
    data = copy.deepcopy(resolved)
    for key in ("expect", "operations"):
        data["spec"].pop(key, None)
    data["spec"]["faults"] = [None]
    return data


def _as_in_the_file(problem: Problem, single: bool) -> Problem:
    return replace(problem, path=problem.path.removeprefix("spec.faults").removeprefix("[0]." if single else ""))


def changed(file: str, text: str, folder: Path, overrides: Sequence[str], running: Scenario) -> Scenario:
    """Another version of a scenario that is up, with a warning for what takes no part. Raises ScenarioError also for
    what cannot change while it is."""
    source = parse_source(file, text)
    wanted = load_source(source, folder, overrides, running.seed)
    ours, theirs = running.resolved["spec"], wanted.resolved["spec"]
    for key in dict.fromkeys((*ours, *theirs)):
        fixed = [("mode",)] if key == "mesh" else [()] if key not in (*_LIVE, *_IDLE) else []
        for below in fixed:
            path = _first_difference(_at(ours.get(key), below), _at(theirs.get(key), below), ("spec", key, *below))
            if path is not None:
                source.report(path, "cannot change while the cluster is up: take it down, and up again with this file")
    if running.cluster.mesh_mode == "none":
        for name in sorted(theirs["services"].keys() - ours["services"].keys()):
            message = (
                "cannot be added while the cluster is up: without a mesh, pods are told of services when they start"
            )
            source.report(("spec", "services", name), message, at_key=True)
    ports = {each.name: each.capture_port for each in running.cluster.services}
    for each in wanted.cluster.services:
        if each.capture_port is not None and each.capture_port != ports.get(each.name):
            message = "cannot be added while the cluster is up: pods are told of services of TCP when they start"
            source.report(("spec", "services", each.name), message, at_key=True)
    errors = [problem for problem in source.problems if problem.severity == "error"]
    if errors:
        raise ScenarioError(errors)
    for key in _PLANS:
        if theirs.get(key) and theirs[key] != ours.get(key):
            message = "takes no part, as the cluster is up; `testbed inject` takes faults"
            source.report(("spec", key), message, at_key=True, severity="warning")
    return replace(wanted, warnings=in_order(source.problems))


def _at(data: Any, path: DocumentPath) -> Any:
    for part in path:
        data = data.get(part)
    return data


def _first_difference(ours: Any, theirs: Any, path: DocumentPath) -> DocumentPath | None:
    if ours == theirs:
        return None
    if isinstance(ours, dict) and isinstance(theirs, dict):
        parts: Sequence[str | int] = list(dict.fromkeys((*theirs, *ours)))
        pairs = [(ours.get(part), theirs.get(part), part) for part in parts]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(ours[part], theirs[part], part) for part in range(len(ours))]
    else:
        return path
    found = (_first_difference(a, b, (*path, part)) for a, b, part in pairs)
    return next((each for each in found if each is not None), path)


def difference(now: Scenario, wanted: Scenario) -> tuple[tuple[Declared, ...], tuple[Declared, ...]]:
    """Objects to apply, which are new or changed, and objects to delete, which nothing that stays refers to."""
    before = {(type(each), each.name): each for each in now.cluster.objects}
    after = {(type(each), each.name): each for each in wanted.cluster.objects}
    apply = tuple(each for key, each in after.items() if before.get(key) != each)
    return apply, tuple(each for key, each in reversed(before.items()) if key not in after)
