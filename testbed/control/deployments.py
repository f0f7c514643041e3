"""Wanted versus existing pods of every Deployment (Kubernetes' ReplicaSet controller).

Owns the creation of pods and the choice of victims when there are too many. Where a pod runs is the scheduler's.
"""

from __future__ import annotations

from dataclasses import replace

from testbed.control.messages import Command, RecordEvent, StopPod
from testbed.control.objects import Deployment, Pod
from testbed.control.store import Store


def reconcile(store: Store, now: float) -> list[Command]:
    """Creates missing pods as `<deployment>-<n>`, `n` never reused, and deletes surplus ones.

    Terminating pods do not count, so a replacement appears as soon as its predecessor is marked for deletion
    (kube-controller-manager's ReplicaSet controller filters inactive pods the same way).
    """
    commands: list[Command] = []
    existing: dict[str, list[Pod]] = {deployment.name: [] for deployment in store.list(Deployment)}
    for pod in store.list(Pod):
        if pod.phase != "Terminating":
            existing[pod.deployment].append(pod)
    for deployment in store.list(Deployment):
        pods = existing[deployment.name]
        for _ in range(deployment.replicas - len(pods)):
            name = store.generate_name(f"{deployment.name}-")
            store.put(Pod(name, deployment.name, deployment.template))
            commands.append(RecordEvent("Deployment", deployment.name, "SuccessfulCreate", {"pod": name}))
        for pod in _victims(pods, len(pods) - deployment.replicas):
            commands.append(RecordEvent("Deployment", deployment.name, "SuccessfulDelete", {"pod": pod.name}))
            commands += terminate(store, pod)
    return commands


def terminate(store: Store, pod: Pod) -> list[Command]:
    """Begins the deletion of a pod. One that no node holds is gone at once; else it is gone at PodStopped."""
    if pod.node is None:
        store.delete(Pod, pod.name)
        return []
    store.put(replace(pod, phase="Terminating", ready=False))
    return [StopPod(pod.node, pod.name)]


def _victims(pods: list[Pod], count: int) -> list[Pod]:
    """Unbound, then not ready, then newest first (ReplicaSet's ActivePodsWithRanks, as far as it applies here)."""
    newest_first = list(reversed(pods))
    return sorted(newest_first, key=lambda pod: (pod.node is not None, pod.ready))[: max(0, count)]
