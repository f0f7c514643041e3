"""Keeps out of the actors' processes what they never use: bring-up is mostly the CPU time of starting them.

When a Ray worker becomes an actor it registers serializers for pydantic's and pyarrow's classes, and imports both
packages for it: 0.2 of its 0.5 CPU seconds. Actors here exchange plain dataclasses; tables are written by the driver.
"""

from __future__ import annotations

import sys

import ray

UNUSED_PACKAGES = ("pydantic", "pyarrow")


def leave_out_unused_packages() -> None:
    """In a Ray worker, make importing them fail as if they were not installed, which Ray is prepared for.

    In time when called while the module of an actor's class is imported: Ray does that before it first serializes.
    """
    if ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE:
        for package in UNUSED_PACKAGES:
            sys.modules.setdefault(package, None)  # type: ignore[arg-type]  # what `import` takes for "not there"
