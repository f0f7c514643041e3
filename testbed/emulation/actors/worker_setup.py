"""What a Ray worker is made when it becomes an actor.

It does without what actors never use, since bring-up is mostly the CPU time of starting them: when Ray makes an actor
of it, it registers serializers for pydantic's and pyarrow's classes, and imports both packages for it, 0.2 of 0.5 CPU
seconds. Actors here exchange plain dataclasses; tables are written by the driver.
"""

from __future__ import annotations

import sys

import ray

from testbed.emulation.processes.precedence import process_gives_way

UNUSED_PACKAGES = ("pydantic", "pyarrow")


def leave_out_unused_packages() -> None:
    """In a Ray worker, make importing them fail as if they were not installed, which Ray is prepared for.

    In time when called while the module of an actor's class is imported: Ray does that before it first serializes.
    """
    if _is_a_worker():
        for package in UNUSED_PACKAGES:
            sys.modules.setdefault(package, None)  # type: ignore[arg-type]  # what `import` takes for "not there"


def let_the_supervised_go_first() -> None:
    """For actors that start nothing which measures: what their process starts from then on gives way as it does."""
    if _is_a_worker():
        process_gives_way()


def _is_a_worker() -> bool:
    return bool(ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE)
