"""What people are told of a cluster that does not come up."""

from testbed.control.waiting import Waiting, grouped


def test_one_object_is_told_with_its_node() -> None:
    waiting = Waiting("pod", "web-1", "started on {node}, not ready: connect to 127.9.1.2:8080 refused", "east-a-1")
    assert grouped([waiting]) == ["pod web-1: started on east-a-1, not ready: connect to 127.9.1.2:8080 refused"]


def test_objects_with_one_reason_are_one_line_whatever_their_nodes_and_addresses() -> None:
    pods = [
        Waiting("pod", f"web-{number}", f"started on {{node}}, not ready: connect to 127.9.{number}.2:80 refused", "a")
        for number in range(1, 111)
    ]
    assert grouped(pods) == [
        "110 pods (web-1, web-2, web-3 and 107 more): started on its node, not ready: connect to 127.9.1.2:80 refused"
    ]


def test_reasons_and_kinds_are_kept_apart_and_the_most_frequent_comes_first() -> None:
    waiting = [
        Waiting("node", "east-a-1", "not registered"),
        Waiting("pod", "web-1", "unschedulable: no node"),
        Waiting("pod", "web-2", "waiting for node {node} to start it: ContainerCreating", "east-a-1"),
        Waiting("pod", "web-3", "waiting for node {node} to start it: ContainerCreating", "east-b-1"),
    ]
    assert grouped(waiting) == [
        "2 pods (web-2, web-3): waiting for its node to start it: ContainerCreating",
        "node east-a-1: not registered",
        "pod web-1: unschedulable: no node",
    ]
