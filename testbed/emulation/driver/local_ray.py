"""A Ray of the run's own on this machine: it listens on loopback only, to who has a token made for the run.

Its folder is a folder of the run's, and its processes are the janitor's descendants: both end with the run. As a
program this module starts Ray's processes and ends; it does what `ray start --head` does, without what a run has no use
for: autoscaler, dashboard, log monitor, the server for clients, and metrics, which Ray shows to anybody.
"""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from pathlib import Path

from testbed.emulation.processes.janitor import Janitor
from testbed.emulation.processes.precedence import session_gives_way
from testbed.emulation.processes.process import last_lines

STARTS_WITHIN_S = 120.0
OBJECT_STORE_BYTES = 256 * 2**20
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    # "No cluster here", whatever the system. Without it, Ray takes 127.0.0.1 to mean the machine's own address.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
_ADDRESS_FILE = "ray-address"


def open_token() -> str | None:
    """What is wrong with the token file that the user's other Rays take, if it is open to others.

    Ray writes it so, for the first Ray on a machine and for `ray get-auth-token --generate`.
    """
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        return None
    if "RAY_AUTH_TOKEN" in os.environ or not mode & 0o077:
        return None
    return (
        f"{path} has mode {mode:04o}, which lets other users of this machine read it, and who has it can run commands "
        f"as you on every Ray that takes it; close it with: chmod 600 {shlex.quote(str(path))}"
    )


def prepare() -> None:
    """Set what Ray reads when it is imported: to be called before that, in the process that will drive the run."""
    os.environ.update(_ENVIRONMENT)
    # It would go before the token of the run.
    os.environ.pop("RAY_AUTH_TOKEN", None)


def start_local_ray(janitor: Janitor, processes: int) -> str:
    """Start Ray, sized for `processes` actors, in the janitor's folder; returns its address.

    From then on the environment says where the token is. Raises RuntimeError.
    """
    assert _ENVIRONMENT.items() <= os.environ.items(), "prepare() comes first"
    folder = janitor.folder
    token = folder / "ray-token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    log = folder / "ray.log"
    code = janitor.run(
        [sys.executable, "-m", "testbed.emulation.driver.local_ray", str(folder), str(processes)],
        dict(os.environ),
        log,
        STARTS_WITHIN_S,
    )
    if code is None:
        raise RuntimeError(f"it did not start within {STARTS_WITHIN_S:g} s")
    if code:
        raise RuntimeError(last_lines(log, 1) or f"its start ended with {code}")
    return (folder / _ADDRESS_FILE).read_text()


def main() -> None:
    # Not part of Ray's public interface, unlike its command; that one cannot leave out dashboard and client server.
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    class Head(Node):
        def start_api_server(self, **_: object) -> None:
            """No dashboard."""

    session_gives_way()
    folder, processes = Path(sys.argv[1]), int(sys.argv[2])
    parameters = RayParams(
        node_ip_address="127.0.0.1",
        # Ray opens its folders to everybody; ours, around them, stays closed.
        temp_dir=str(folder / "ray"),
        # Short, because names of Unix sockets are: 107 bytes at most.
        session_name="session",
        # Actors ask for no CPU; this is how many workers Ray starts ahead, and we know how many we need.
        num_cpus=processes,
        object_store_memory=OBJECT_STORE_BYTES,
        min_worker_port=0,
        max_worker_port=0,
        dashboard_agent_listen_port=0,
        no_monitor=True,
        include_log_monitor=False,  # type: ignore[arg-type]  # Ray's own types say text
        _system_config={"worker_maximum_startup_concurrency": processes, "enable_metrics_collection": False},  # type: ignore[dict-item]
    )
    head = Head(parameters, head=True, shutdown_at_exit=False, spawn_reaper=False)
    (folder / _ADDRESS_FILE).write_text(head.gcs_address)


if __name__ == "__main__":
    main()
