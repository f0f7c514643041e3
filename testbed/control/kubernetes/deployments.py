"""Wanted versus existing pods of every Deployment (Kubernetes' Deployment and ReplicaSet controllers).

Owns the creation of pods, the pace at which those of an older template are replaced, and the choice of victims when
there are too many. Where a pod runs is the scheduler's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, floor

from testbed.control.messages import Command, RecordEvent, StopPod
from testbed.control.store import Store
from testbed.objects.core import Pod
from testbed.objects.workloads import Deployment

MAX_SURGE = MAX_UNAVAILABLE = 0.25
"""Of a rolling update: Kubernetes' defaults. The surge is rounded up, what may be missing down."""


def reconcile(store: Store, now: float) -> list[Command]:
    """Creates missing pods as `<deployment>-<n>`, `n` never reused, and deletes surplus ones, also those of a
    Deployment that is gone.

    Terminating pods do not count, so a replacement appears as soon as its predecessor is marked for deletion
    (kube-controller-manager's ReplicaSet controller filters inactive pods the same way).
    """
    commands: list[Command] = []
    deployments = {(each.namespace, each.name): each for each in store.list(Deployment)}
    existing: dict[tuple[str, str], list[Pod]] = {key: [] for key in deployments}
    for pod in store.list(Pod):
        if pod.phase != "Terminating":
            existing.setdefault((pod.namespace, pod.deployment), []).append(pod)
    for key, pods in existing.items():
        deployment = deployments.get(key)
        missing, victims = (0, pods) if deployment is None else _steps(deployment, pods)
        for _ in range(missing):
            assert deployment is not None
            name = store.generate_name(f"{deployment.name}-")
            store.put(Pod(name, deployment.name, deployment.template, namespace=deployment.namespace))
            commands.append(RecordEvent("Deployment", deployment.name, "SuccessfulCreate", {"pod": name}))
        for pod in victims:
            commands.append(RecordEvent("Deployment", pod.deployment, "SuccessfulDelete", {"pod": pod.name}))
            commands += terminate(store, pod)
    return commands


def _steps(deployment: Deployment, pods: Sequence[Pod]) -> tuple[int, list[Pod]]:
    """How many pods to create now, and which to delete.

    While there are pods of an older template, new ones come and old ones go as far as surge and availability allow.
    Pods that never became ready go first. Source: Kubernetes, pkg/controller/deployment, rolling.go. A pod that is
    pinned to its node leaves before its successor comes, as a DaemonSet's does.
    """
    wanted, pinned = deployment.replicas, deployment.template.node is not None
    old = [pod for pod in pods if pod.template != deployment.template]
    if not old:
        return max(0, wanted - len(pods)), _victims(pods, len(pods) - wanted)
    surge = 0 if pinned else ceil(wanted * MAX_SURGE)
    unavailable = 1 if pinned else floor(wanted * MAX_UNAVAILABLE)
    if not surge and not unavailable:
        unavailable = 1  # ResolveFenceposts; for no replicas at all
    new = [pod for pod in pods if pod.template == deployment.template]
    if len(pods) > wanted + surge:
        # It was scaled down meanwhile: in proportion, before the rollout goes on (sync.go, scale).
        new_stay = floor(len(new) * (wanted + surge) / len(pods) + 0.5)
        old_stay = wanted + surge - new_stay
        return 0, [*_victims(new, len(new) - new_stay), *_victims(old, len(old) - old_stay)]
    missing = max(0, min(wanted - len(new), wanted + surge - len(pods)))
    surplus = _victims(new, len(new) - wanted)
    unready_new = sum(not pod.ready for pod in new if pod not in surplus) + missing
    may_go = len(pods) + missing - len(surplus) - (wanted - unavailable) - unready_new
    unready_old = [pod for pod in old if not pod.ready][: max(0, may_go)]
    ready_old = [pod for pod in old if pod.ready]
    ready = sum(pod.ready for pod in pods if pod not in surplus)
    return missing, [*surplus, *unready_old, *_victims(ready_old, ready - (wanted - unavailable))]


def terminate(store: Store, pod: Pod) -> list[Command]:
    """Begins the deletion of a pod. One that no node holds is gone at once; else it is gone at PodStopped."""
    if pod.node is None:
        store.delete(Pod, pod.name)
        return []
    store.put(replace(pod, phase="Terminating", ready=False))
    return [StopPod(pod.node, pod.name)]


def _victims(pods: Sequence[Pod], count: int) -> list[Pod]:
    """Unbound, then not ready, then newest first (ReplicaSet's ActivePodsWithRanks, as far as it applies here)."""
    newest_first = list(reversed(pods))
    return sorted(newest_first, key=lambda pod: (pod.node is not None, pod.ready))[: max(0, count)]
