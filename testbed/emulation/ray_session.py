"""The run's connection to Ray: a local one of its own, or an existing cluster's."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

import ray
from ray.exceptions import RayError

from testbed.emulation import worker_setup
from testbed.emulation.janitor import RUN_VARIABLE

_SETUP_HOOK_VARIABLE = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
"""Where Ray's workers look for the hook that a runtime environment names. Set for a Ray of our own, it spares the
runtime environment, with which workers could not be started ahead. A Ray that does not know it is only slower."""


class RayUnreachable(Exception):
    """There is no Ray at the given address, or a local one did not start."""


@contextlib.contextmanager
def ray_session(address: str | None, run_id: str, processes: int) -> Iterator[None]:
    """Ray for the time of the block. Without an address it is started here, sized for `processes` actors.

    Raises RayUnreachable.
    """
    # Every process of a local Ray inherits the mark by which the janitor finds what a killed run leaves behind.
    os.environ[RUN_VARIABLE] = run_id
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray gives its workers niceness 15: load generator and proxies would be measured behind everything else.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        if address is None:
            os.environ[_SETUP_HOOK_VARIABLE] = worker_setup.HOOK
            # Actors ask for no CPU; `num_cpus` is how many workers Ray starts ahead, and we know how many we need.
            ray.init(
                num_cpus=processes,
                object_store_memory=256 * 2**20,
                _system_config={"worker_maximum_startup_concurrency": processes},
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                logging_level=logging.ERROR,
            )
        else:
            ray.init(
                address,
                runtime_env={"env_vars": {RUN_VARIABLE: run_id}},
                log_to_driver=False,
                configure_logging=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RayError, RuntimeError, ValueError, OSError) as error:
        where = "a local Ray" if address is None else f"Ray at {address}"
        raise RayUnreachable(f"{where} cannot be used: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()
