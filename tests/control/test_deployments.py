from dataclasses import replace

from testbed.control.kubernetes import deployments
from testbed.control.messages import RecordEvent, StopPod
from testbed.control.store import Store
from testbed.objects.core import Pod
from testbed.objects.workloads import Deployment, PodTemplate

WEB = Deployment("web", 3, PodTemplate("web", None))


def reconciled(deployment: Deployment = WEB) -> Store:
    store = Store()
    store.put(deployment)
    deployments.reconcile(store, 0.0)
    return store


def names(store: Store) -> list[str]:
    return [pod.name for pod in store.list(Pod)]


def test_missing_pods_are_created_with_numbered_names() -> None:
    store = Store()
    store.put(WEB)
    commands = deployments.reconcile(store, 0.0)
    assert names(store) == ["web-1", "web-2", "web-3"]
    assert commands[0] == RecordEvent("Deployment", "web", "SuccessfulCreate", {"pod": "web-1"})
    assert deployments.reconcile(store, 0.0) == []


def test_a_terminating_pod_is_replaced_at_once_under_a_new_name() -> None:
    store = reconciled()
    store.put(replace(store.get(Pod, "web-2"), node="a", phase="Terminating"))
    deployments.reconcile(store, 1.0)
    assert names(store) == ["web-1", "web-2", "web-3", "web-4"]
    store.delete(Pod, "web-2")
    store.delete(Pod, "web-4")
    deployments.reconcile(store, 2.0)
    assert names(store) == ["web-1", "web-3", "web-5"]


def test_scaling_down_deletes_unbound_then_unready_then_newest_pods() -> None:
    store = reconciled(replace(WEB, replicas=5))
    for name, ready in (("web-1", True), ("web-2", False), ("web-3", True), ("web-4", True)):
        store.put(replace(store.get(Pod, name), node="a", phase="Running", ready=ready))
    store.put(replace(WEB, replicas=2))
    commands = deployments.reconcile(store, 1.0)
    assert [command for command in commands if isinstance(command, StopPod)] == [
        StopPod("a", "web-2"),
        StopPod("a", "web-4"),
    ]
    assert [(pod.name, pod.phase) for pod in store.list(Pod)] == [
        ("web-1", "Running"),
        ("web-2", "Terminating"),
        ("web-3", "Running"),
        ("web-4", "Terminating"),
    ]
