"""What actors' processes do without."""

from __future__ import annotations

import subprocess
import sys

import pytest

ACTORS = ("master", "node_agent", "pod", "sidecar", "load_generator", "machine")
AS_A_WORKER = """
import sys, ray
class Context:
    class worker:
        mode = ray.WORKER_MODE
ray.is_initialized = lambda: True
ray.get_runtime_context = lambda: Context
"""


def left_out(program: str) -> str:
    """Which packages cannot be imported after the program."""
    tell = "print([package for package in UNUSED_PACKAGES if sys.modules.get(package, sys) is None])"
    whole = f"{program}\nfrom testbed.emulation.actors.worker_setup import UNUSED_PACKAGES\n{tell}"
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("actor", ACTORS)
def test_a_worker_that_becomes_an_actor_leaves_out_what_actors_never_use(actor: str) -> None:
    assert left_out(f"{AS_A_WORKER}\nimport testbed.emulation.actors.{actor}") == "['pydantic', 'pyarrow']"


def test_what_a_worker_has_loaded_already_stays() -> None:
    assert left_out(f"{AS_A_WORKER}\nimport pydantic, testbed.emulation.actors.seam") == "['pyarrow']"


def test_the_driver_keeps_everything() -> None:
    assert left_out("import sys, testbed.emulation.actors.seam, pydantic, pyarrow") == "[]"
