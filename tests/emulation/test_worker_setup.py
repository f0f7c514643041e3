"""What actors' processes do without."""

from __future__ import annotations

import subprocess
import sys

import pytest

ACTORS = ("master", "node_agent", "pod", "sidecar", "load_generator")


@pytest.mark.parametrize("actor", ACTORS)
def test_every_actor_can_be_imported_without_the_packages_that_are_left_out(actor: str) -> None:
    program = (
        "import sys; from testbed.emulation.worker_setup import *; leave_out_unused_packages();"
        f"import testbed.emulation.{actor};"
        "print([package for package in UNUSED_PACKAGES if sys.modules[package] is not None])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_what_is_loaded_already_stays() -> None:
    program = (
        "import sys, pydantic; from testbed.emulation.worker_setup import *; leave_out_unused_packages();"
        "print(sys.modules['pydantic'] is pydantic, sys.modules['pyarrow'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "True None", done.stderr
