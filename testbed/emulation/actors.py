"""The seam to Ray's actors: classes are plain Python, and become actors here.

Nothing else in the package creates one, so placement is decided in one place: the loopback backend is one machine,
and every actor goes to the machine of whoever starts it.
"""

from __future__ import annotations

import asyncio
import time
from functools import cache
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Actor = ActorHandle[Any]
"""A handle: `await handle.method.remote(...)`. The actor ends when its last handle is gone."""


def start_actor(kind: type, *arguments: object) -> Actor:
    """A new actor of that class, on this machine. Actors ask Ray for no CPU: they supervise, the work is elsewhere."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    handle: Actor = _actor_class(kind).options(num_cpus=0, scheduling_strategy=here).remote(*arguments)
    return handle


def this_actor() -> Actor:
    """The handle of the actor that asks, to hand to others."""
    handle: Actor = ray.get_runtime_context().current_actor
    return handle


async def until(due_s: float) -> None:
    """Wait in an actor until a monotonic time; at once where it has passed."""
    await asyncio.sleep(max(0.0, due_s - time.monotonic()))


@cache
def _actor_class(kind: type) -> Any:
    # Once a class: every call would export it to the cluster again.
    return ray.remote(kind)
