"""A lab as a whole: made, found, asked, and removed with everything that is left of it, however it ended."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from testbed.machines.lab.keys import ensure_ray_token, user_key
from testbed.machines.lab.plan import RESERVED_NETWORK, LabError, LabPlan, check_name, state_dir
from testbed.machines.lab.ray_launcher import forget_cluster
from testbed.machines.lab.state import LabState, load_state
from testbed.machines.lab.supervisor import SOCKET, UP

DEBIAN_PACKAGES = {
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "rsync": "rsync",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
END_TIMEOUT_S = 5.0


def check_host() -> None:
    """Raises LabError when no lab can be made here, with what to do about it."""
    if sys.platform != "linux":
        raise LabError(f"a lab needs Linux's network namespaces, and this is {sys.platform}: run it in a Linux VM")
    if os.geteuid() != 0:
        raise LabError("a lab makes network namespaces, which takes root: run it with sudo")
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = [DEBIAN_PACKAGES[tool] for tool in DEBIAN_PACKAGES if shutil.which(tool, path=path) is None]
    if missing:
        install = f"apt-get install -y {' '.join(dict.fromkeys(missing))}"
        raise LabError(f"a lab needs programs that are not here: {install}")


def check_free(plan: LabPlan) -> None:
    """Raises LabError when somebody else's network lies where the lab's would.

    Routes to more than all the networks that labs may have are ways out of here, as a VPN's 128.0.0.0/1 is.
    """
    routes = orjson.loads(subprocess.run(["ip", "-json", "route", "show"], check=True, capture_output=True).stdout)
    lab = ipaddress.IPv4Network(plan.subnet)
    for route in routes:
        network = ipaddress.IPv4Network("0.0.0.0/0" if route["dst"] == "default" else route["dst"], strict=False)
        if network.prefixlen >= RESERVED_NETWORK.prefixlen and network.overlaps(lab):
            raise LabError(f"{plan.subnet} is in use here ({network} dev {route.get('dev')}): choose a --subnet")


def make_lab(plan: LabPlan, home: Path) -> bool:
    """Make the lab and wait until all machines are up; False if just this lab is up already. Raises LabError."""
    check_host()
    with _alone(plan.name):
        if (running := _running(plan.name)) is not None:
            if running.plan == plan:
                return False
            raise LabError(
                f"a lab of {running.plan.count} machines in {', '.join(running.plan.zones)} is up: "
                "`testbed lab down` first"
            )
        _remove(plan.name)
        check_free(plan)
        key = user_key(home)
        ensure_ray_token(home)
        forget_cluster(plan.machines[0].address)
        plan.state_dir.mkdir(mode=0o700)
        LabState(plan, ()).save()
        try:
            _start_supervisor(plan, key.with_suffix(".pub").read_text())
        except BaseException:
            _remove(plan.name)
            raise
    return True


def remove_lab(name: str) -> bool:
    """Remove the lab, or what a crash has left of it; False if there is nothing. Raises LabError."""
    check_name(name)
    if os.geteuid() != 0:
        raise LabError("only root may remove a lab: run it with sudo")
    with _alone(name):
        return _remove(name)


def ask(name: str, command: str, machines: Sequence[str] = ()) -> dict[str, Any]:
    """Have the lab's supervisor carry out a command; works on machines too. Raises LabError."""
    check_name(name)
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(state_dir(name) / SOCKET))
        except PermissionError:
            raise LabError("only root may command a lab: run it with sudo") from None
        except OSError:
            raise LabError("no lab is up: `testbed lab up` makes one") from None
        line = b""
        with contextlib.suppress(OSError):
            client.sendall(orjson.dumps({"command": command, "machines": machines}) + b"\n")
            with client.makefile("rb") as lines:
                line = lines.readline()
    if not line.endswith(b"\n"):
        raise LabError("the lab has ended: `testbed lab up` makes a new one")
    answer: dict[str, Any] = orjson.loads(line)
    if "error" in answer:
        raise LabError(answer["error"])
    return answer


def _running(name: str) -> LabState | None:
    state = load_state(state_dir(name))
    return state if state is not None and state.processes and state.processes[0].is_running else None


def _start_supervisor(plan: LabPlan, authorized_key: str) -> None:
    with (plan.state_dir / "supervisor.log").open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "testbed.machines.lab.supervisor", plan.name, authorized_key],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    assert supervisor.stdout is not None
    with supervisor.stdout as answers:
        answer = answers.readline()
    if answer != UP:
        log_lines = (plan.state_dir / "supervisor.log").read_text().strip().split("\n")
        raise LabError(f"the lab did not come up: {answer.decode().strip() or log_lines[-1]}")
    # It is meant to outlive us.
    supervisor.returncode = 0


def _remove(name: str) -> bool:
    """The same whether the lab runs, has crashed, or is half made: by its name and its list of processes."""
    folder = state_dir(name)
    state = load_state(folder)
    link = Path("/sys/class/net") / name
    if state is None and (folder / SOCKET).exists():
        raise LabError("this is a machine of the lab: make and remove labs on their host")
    if not folder.exists() and not link.exists():
        return False
    if state is not None:
        supervisor = state.processes[:1]
        for process in supervisor:
            process.signal(signal.SIGTERM)
        _wait_while(lambda: any(process.is_running for process in supervisor))
        for process in state.processes:
            process.signal(signal.SIGKILL)
        _wait_while(lambda: any(process.is_running for process in state.processes))
        forget_cluster(state.plan.machines[0].address)
    # The kernel takes the link away with the last process of the other end, in its own time.
    _wait_while(link.exists)
    if link.exists():
        subprocess.run(["ip", "link", "delete", name], check=False)
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _wait_while(condition: Callable[[], bool]) -> None:
    """At most END_TIMEOUT_S."""
    Retrying(
        stop=stop_after_delay(END_TIMEOUT_S),
        wait=wait_fixed(0.02),
        retry=retry_if_result(bool),
        retry_error_callback=lambda _: None,
    )(condition)


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """One `up` or `down` at a time: an abstract socket is a lock that leaves nothing behind."""
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(f"\0{name}")
        except OSError:
            raise LabError("another `testbed lab up` or `down` is at work: wait for it") from None
        yield
