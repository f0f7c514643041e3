"""One machine: the namespaces it lives in, its init, its home.

A machine is power that is on or off. Its home outlives a power-off, its memory (/tmp, /run, /dev/shm) does not. What
is not private is the host's: a machine sees the host's programs, and the environment in which this package runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import orjson
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

import testbed
from testbed.machines.lab.plan import LabError, LabPlan, MachinePlan
from testbed.machines.lab.switch import Switch

ZONE_FILE = ".testbed-zone"
ENVIRONMENT_LINK = "testbed-env"
BOOT_TIMEOUT_S = 15.0
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Machine:
    """Owned by the one who makes it: all of the machine dies with the thread that called `boot`."""

    def __init__(self, plan: LabPlan, machine: MachinePlan, authorized_key: str) -> None:
        self.plan = machine
        self._lab = plan
        self._log = plan.state_dir / "log" / f"{machine.name}.log"
        self._home = plan.state_dir / "homes" / machine.name
        self._unshare: subprocess.Popen[bytes] | None = None
        self._init_pid = 0
        self._furnish(authorized_key)

    @property
    def is_up(self) -> bool:
        return self._unshare is not None and self._unshare.poll() is None

    @property
    def init_pid(self) -> int:
        """Process 1 of the machine, as the host counts."""
        assert self.is_up
        return self._init_pid

    @property
    def pids(self) -> list[int]:
        return [self._unshare.pid, self._init_pid] if self._unshare is not None and self.is_up else []

    def boot(self) -> None:
        """Make the namespaces; `connect` goes on from there."""
        assert not self.is_up
        supervisor = os.getpid()

        def die_with_the_lab() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != supervisor:
                os._exit(1)

        offset = str(self.plan.clock_offset_s)
        with self._log.open("ab") as log:
            self._unshare = subprocess.Popen(
                [
                    *("unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=SIGKILL"),
                    *("--mount-proc", "--time", "--monotonic", offset, "--boottime", offset),
                    *(sys.executable, "-I", str(Path(__file__).with_name("init.py"))),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_the_lab,
            )

    def connect(self, switch: Switch, cut_from: Iterable[str]) -> None:
        """Plug the machine in and let its init go on. Raises LabError."""
        assert self._unshare is not None
        assert self._unshare.stdin is not None
        assert self._unshare.stdout is not None
        if self._unshare.stdout.readline() != b"born\n":
            raise self._failure("was not born")
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        self._init_pid = int(children[0])
        switch.plug(self.plan, self._init_pid, cut_from)
        self._unshare.stdin.write(orjson.dumps(self._settings()) + b"\n")
        self._unshare.stdin.flush()

    def wait_until_up(self) -> None:
        """Until sshd listens, which is when it writes its process id. Raises LabError."""
        listening = Path(f"/proc/{self._init_pid}/root/run/sshd.pid")
        Retrying(
            stop=stop_after_delay(BOOT_TIMEOUT_S),
            wait=wait_fixed(0.02),
            retry=retry_if_result(lambda waiting: waiting),
            retry_error_callback=lambda _: None,
        )(lambda: self.is_up and not listening.exists())
        if not self.is_up or not listening.exists():
            raise self._failure("did not come up")

    def power_off(self, switch: Switch) -> None:
        """No goodbye: the cable is out before the first process dies."""
        switch.unplug(self.plan)
        self.stop()

    def stop(self) -> None:
        """Kill everything on the machine while its cable is in, so that its peers are told."""
        if self._unshare is None:
            return
        if self._unshare.poll() is None:
            # unshare waits for the init, and an init is gone only when all of its namespace are.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init_pid or self._unshare.pid, signal.SIGKILL)
        self._unshare.wait()
        for pipe in (self._unshare.stdin, self._unshare.stdout):
            if pipe is not None:
                # An init that died early has left its settings unread, and closing tries to write them once more.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._unshare, self._init_pid = None, 0

    def _furnish(self, authorized_key: str) -> None:
        """The home as an installed image has it: the key that may log in, the environment, and where it stands."""
        ssh = self._home / ".ssh"
        ssh.mkdir(parents=True, mode=0o700)
        self._home.chmod(0o700)
        (ssh / "authorized_keys").write_text(authorized_key)
        (self._home / ENVIRONMENT_LINK).symlink_to(sys.prefix)
        if self.plan.zone is not None:
            (self._home / ZONE_FILE).write_text(f"{self.plan.zone}\n")
        for name in (".bashrc", ".profile"):
            skeleton = Path("/etc/skel") / name
            if skeleton.exists():
                shutil.copy(skeleton, self._home / name)

    def _settings(self) -> dict[str, object]:
        state = self._lab.state_dir
        return {
            "name": self.plan.name,
            "stage": str(state / "stage"),
            "private": {
                pwd.getpwuid(0).pw_dir: str(self._home),
                "/tmp": "mode=1777",
                "/run": "mode=755",
                "/dev/shm": "mode=1777",
                str(state): "mode=700",
            },
            "visible": [
                *(str(Path(path).resolve()) for path in (sys.prefix, sys.base_prefix)),
                str(Path(testbed.__file__).resolve().parents[1]),
                *(str(state / kept) for kept in ("control", "ssh")),
            ],
            "files": {f"/etc/{name}": str(state / "ssh" / name) for name in ("hosts", "shadow")},
            "sshd_config": str(state / "ssh" / f"{self.plan.name}.conf"),
        }

    def _failure(self, what: str) -> LabError:
        lines = self._log.read_text(errors="replace").split("\n")
        said = " | ".join([line.strip() for line in lines if line.strip()][-3:])
        return LabError(f"machine {self.plan.name} {what}: {said or 'it said nothing'}")
