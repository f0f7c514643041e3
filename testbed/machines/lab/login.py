"""What lets one log in to a machine: sshd's configuration, its host key, and the few files of /etc that are its own."""

from __future__ import annotations

import pwd
from pathlib import Path

from testbed.machines.lab.keys import make_key
from testbed.machines.lab.plan import LabPlan, MachinePlan

LAB_VARIABLE = "TESTBED_LAB"
"""Names the lab that a command means, on the host and on machines."""


def write_login_files(plan: LabPlan, folder: Path) -> None:
    """Into `folder`, which every machine sees: `ssh_host_key`, `<machine>.conf`, `hosts` and `shadow`."""
    make_key(folder / "ssh_host_key", plan.name)
    (folder / "hosts").write_text(hosts(plan))
    # Root of the host may be locked, which sshd takes as "may not log in at all"; `*` is a password nobody has.
    (folder / "shadow").write_text(f"{pwd.getpwuid(0).pw_name}:*:19000:0:99999:7:::\n")
    for machine in plan.machines:
        (folder / f"{machine.name}.conf").write_text(sshd_config(plan, machine, folder))


def hosts(plan: LabPlan) -> str:
    lines = ["127.0.0.1 localhost", f"{plan.host_address} host"]
    return "\n".join([*lines, *(f"{machine.address} {machine.name}" for machine in plan.machines)]) + "\n"


def sshd_config(plan: LabPlan, machine: MachinePlan, folder: Path) -> str:
    """Keys only, on the machine's own address only."""
    return f"""\
ListenAddress {machine.address}:22
HostKey {folder / "ssh_host_key"}
PidFile /run/sshd.pid
AuthorizedKeysFile .ssh/authorized_keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 64
SetEnv {LAB_VARIABLE}={plan.name} RAY_AUTH_MODE=token
Subsystem sftp internal-sftp
"""
