"""What a person adds to a scenario that is up: faults in a file of their own, and the file in another version."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.documents.problems import ScenarioError
from testbed.faults.nodes import NodeCrash
from testbed.faults.pods import PodKill
from testbed.faults.timeline import ScheduledFault
from testbed.faults.zones import ZoneCrash
from testbed.objects.mesh import DestinationRule
from testbed.objects.workloads import Deployment
from testbed.scenario import load_scenario
from testbed.scenario.amendments import changed, difference, faults_of

FILE = Path(__file__).parents[2] / "scenarios" / "zone-outage.yaml"
TEXT = FILE.read_text()
RUNNING = load_scenario(FILE)


def faults(text: str) -> tuple[ScheduledFault, ...]:
    return faults_of("fault.yaml", text, RUNNING)


def refusal(text: str) -> list[str]:
    with pytest.raises(ScenarioError) as refused:
        faults(text)
    return [str(problem) for problem in refused.value.problems]


def changes_refused(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ScenarioError) as refused:
        changed("new.yaml", text, FILE.parent, overrides, RUNNING)
    return [str(problem) for problem in refused.value.problems]


def test_a_fault_comes_now_and_lasts_until_it_is_healed_unless_it_says_otherwise() -> None:
    assert faults("{name: gone, crash: {zone: east-a}}") == (ScheduledFault("gone", 0.0, None, ZoneCrash("east-a")),)
    assert faults("- {name: a, at: 2s, for: 3s, crash: {node: east-b-1}}\n- {name: b, kill: {pod: web-17}}") == (
        ScheduledFault("a", 2.0, 3.0, NodeCrash("east-b-1")),
        ScheduledFault("b", 0.0, None, PodKill("web-17", None, None, 1)),
    )


def test_mistakes_are_told_all_at_once_where_they_are_written_in_the_file() -> None:
    assert refusal("name: gone\ncrash:\n  zone: east-q\n") == [
        "fault.yaml:3:9: crash.zone: there is no zone 'east-q'; did you mean 'east-c'?"
    ]
    assert refusal("- name: a\n  krash: {zone: east-a}\n- name: a\n  at: soon\n  kill: {service: web}\n") == [
        "fault.yaml:2:3: [0].krash: unknown key; did you mean 'crash'?",
        "fault.yaml:4:7: [1].at: must be a duration such as 250ms or 20s, not 'soon'",
    ]
    assert refusal("- {name: a, crash: {zone: east-a}}\n- {name: a, kill: {service: web, count: 9}}\n") == [
        "fault.yaml:2:10: [1].name: there is a fault 'a' already; choose another name",
        "fault.yaml:2:41: [1].kill.count: web has only 3 replicas",
    ]
    assert refusal("{name: a, for: 2s, kill: {service: web}}")[0].endswith("for: a kill has no duration; remove it")


@pytest.mark.parametrize("text", ["3", "[]", "[[]]", "hello", "{}", "", "[1, 2]", "null", "- - -", "{name: x", "\x07"])
def test_what_is_no_fault_is_refused(text: str) -> None:
    assert refusal(text)
    assert all(line.startswith("fault.yaml:") for line in refusal(text)), refusal(text)


def test_a_scenario_is_no_fault() -> None:
    assert refusal(TEXT)[0].endswith("apiVersion: this is a scenario; a fault, or a list of faults, is wanted")


def test_only_objects_that_differ_are_applied_and_those_of_no_use_deleted() -> None:
    assert difference(RUNNING, changed("new.yaml", TEXT, FILE.parent, [], RUNNING)) == ((), ())
    more = changed("new.yaml", TEXT.replace("replicas: 3", "replicas: 5"), FILE.parent, [], RUNNING)
    apply, delete = difference(RUNNING, more)
    assert [(type(each), each.name) for each in apply] == [(Deployment, "web")]
    assert delete == ()
    policy = changed("new.yaml", TEXT, FILE.parent, ["spec.mesh.policies[0].timeout=1s"], RUNNING)
    apply, _ = difference(RUNNING, policy)
    assert "VirtualService" in {type(each).__name__ for each in apply}
    assert Deployment not in {type(each) for each in apply}
    alone = TEXT.replace("calls: [orders]", "calls: []").replace(
        "    orders:\n      replicas: 2\n      zones: [east-a, east-b]\n"
        "      workload: {work: 2ms, responseSize: 2kB}\n",
        "",
    )
    _, delete = difference(RUNNING, changed("new.yaml", alone, FILE.parent, [], RUNNING))
    assert {each.name for each in delete} == {"orders"}
    assert DestinationRule in {type(each) for each in delete}


def test_what_cannot_change_while_the_cluster_is_up_is_refused_where_it_is_written() -> None:
    why = "cannot change while the cluster is up: take it down, and up again with this file"
    assert changes_refused(TEXT.replace("east-b: {nodes: 1}", "east-b: {nodes: 2}")) == [
        f"new.yaml:24:27: spec.topology.regions.east.zones.east-b.nodes: {why}"
    ]
    assert changes_refused(TEXT, "spec.mesh.mode=none", "spec.load.duration=1m") == [
        f"--set spec.load.duration=1m: spec.load.duration: {why}",
        f"--set spec.mesh.mode=none: spec.mesh.mode: {why}",
    ]
    assert "new.yaml:1:1: is empty" in changes_refused("")[0]


def test_plans_that_differ_are_said_to_take_no_part() -> None:
    text = TEXT.replace("at: 12s", "at: 13s")
    line = text[: text.index("  faults:")].count("\n") + 1
    assert [str(problem) for problem in changed("new.yaml", text, FILE.parent, [], RUNNING).warnings] == [
        f"new.yaml:{line}:3: warning: spec.faults: takes no part, as the cluster is up; `testbed inject` takes faults"
    ]
    without = changed("new.yaml", TEXT, FILE.parent, ["spec.faults=", "spec.expect="], RUNNING)
    assert (changed("new.yaml", TEXT, FILE.parent, [], RUNNING).warnings, without.warnings) == ((), ())


def test_plans_and_expectations_may_differ() -> None:
    text = TEXT.replace("at: 12s", "at: 13s").replace("atMost: 6s", "atMost: 7s")
    assert difference(RUNNING, changed("new.yaml", text, FILE.parent, [], RUNNING)) == ((), ())


def test_a_service_that_speaks_tcp_cannot_come_later_because_pods_learn_of_it_when_they_start() -> None:
    tcp = "spec.services.cache={appProtocol: tcp, workload: {command: [python3, cache.py]}}"
    (refused,) = changes_refused(TEXT, tcp)
    assert refused.endswith(
        "spec.services.cache: cannot be added while the cluster is up: pods are told of services of TCP when they start"
    )
