"""What actors' processes do without, and whom they let go first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from testbed.emulation.processes.precedence import SUPERVISING_NICENESS

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


def test_threads_of_a_worker_that_supervises_give_way_and_so_does_what_they_start_later() -> None:
    program = f"""{AS_A_WORKER}
import os, threading
from testbed.emulation.actors.worker_setup import let_the_supervised_go_first
there, may_end = threading.Event(), threading.Event()
threading.Thread(target=lambda: (there.set(), may_end.wait())).start()
there.wait()
let_the_supervised_go_first()
nicenesses = {{os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")}}
may_end.set()
started = os.popen("nice").read().strip()
print(nicenesses, started)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    niceness = max(SUPERVISING_NICENESS, os.nice(0))
    assert done.stdout.split() == [f"{{{niceness}}}", f"{niceness}"], done.stderr
