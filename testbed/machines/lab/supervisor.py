"""The process that owns a lab: machines live as long as it does. It takes commands over a Unix socket.

The socket is reached from the host and, at the same path, from every machine, so that a machine can be powered off
from another one. One command at a time, one JSON line each way; an answer with `error` tells why not.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import orjson

from testbed.machines.lab.login import write_login_files
from testbed.machines.lab.machine import Machine
from testbed.machines.lab.plan import LabError, LabPlan, MachinePlan, state_dir
from testbed.machines.lab.state import LabState, find_processes, load_state
from testbed.machines.lab.switch import Switch

CLONE_NEWNET = 0x40000000
CLIENT_TIMEOUT_S = 5.0
MAX_COMMAND_BYTES = 65536
UP = b"up\n"
SOCKET = Path("control") / "socket"


class Lab:
    """The machines and the cables between them, as commands change them."""

    def __init__(self, plan: LabPlan, switch: Switch, authorized_key: str) -> None:
        self._plan = plan
        self._switch = switch
        self._machines = {machine.name: Machine(plan, machine, authorized_key) for machine in plan.machines}
        self._cuts: set[frozenset[str]] = set()

    def power_on(self, machines: Sequence[MachinePlan]) -> None:
        """All at once; if one of them fails, all are off again. Raises LabError, CalledProcessError or OSError."""
        booting = [self._machines[machine.name] for machine in machines]
        try:
            for machine in booting:
                machine.boot()
            for machine in booting:
                machine.connect(self._switch, self._cut_from(machine.plan.name))
            self._remember()
            for machine in booting:
                machine.wait_until_up()
        except Exception:
            for machine in booting:
                machine.power_off(self._switch)
            self._remember()
            raise

    def end(self) -> None:
        """The machines end with their cables in: who is connected to them learns of it."""
        for machine in self._machines.values():
            machine.stop()

    def handle(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry one command out and answer it. Raises LabError."""
        named = [self._plan.machine(name) for name in command.get("machines", [])]
        match command["command"]:
            case "status":
                return {"machines": [self._status(machine) for machine in self._machines.values()]}
            case "kill":
                for machine in named:
                    self._machines[machine.name].power_off(self._switch)
                self._remember()
            case "start":
                off = [machine for machine in named if not self._machines[machine.name].is_up]
                for machine in off:
                    # One that ended by itself has left its cable behind.
                    self._machines[machine.name].power_off(self._switch)
                self.power_on(off)
            case "cut" | "heal":
                self._change_cuts(command["command"], named)
            case unknown:
                raise LabError(f"this lab knows no command {unknown!r}: it was made by another version of testbed")
        return {}

    def _change_cuts(self, command: str, named: list[MachinePlan]) -> None:
        first, *others = named
        pairs = {frozenset({first.name, other.name}) for other in others if other != first}
        if not pairs:
            raise LabError(f"{command} needs two machines, such as: {command} m1 m2")
        self._cuts = self._cuts | pairs if command == "cut" else self._cuts - pairs
        for machine in named:
            if self._machines[machine.name].is_up:
                pid = self._machines[machine.name].init_pid
                self._switch.address_neighbours(machine, pid, self._cut_from(machine.name))

    def _cut_from(self, name: str) -> list[str]:
        return [other.name for other in self._plan.machines if frozenset({name, other.name}) in self._cuts]

    def _status(self, machine: Machine) -> dict[str, Any]:
        plan = machine.plan
        return {
            "name": plan.name,
            "address": plan.address,
            "zone": plan.zone,
            "state": "up" if machine.is_up else "off",
            "cut_from": self._cut_from(plan.name),
            "clock_offset_s": plan.clock_offset_s,
            "pid": machine.init_pid if machine.is_up else None,
        }

    def _remember(self) -> None:
        pids = [pid for machine in self._machines.values() for pid in machine.pids]
        LabState(self._plan, find_processes([os.getpid(), *pids])).save()


def serve(lab: Lab, server: socket.socket) -> NoReturn:
    while True:
        client, _ = server.accept()
        with client, contextlib.suppress(OSError):
            client.settimeout(CLIENT_TIMEOUT_S)
            with client.makefile("rb") as lines:
                line = lines.readline(MAX_COMMAND_BYTES)
            client.sendall(orjson.dumps(_answer(lab, line)) + b"\n")


def _answer(lab: Lab, line: bytes) -> dict[str, Any]:
    try:
        return lab.handle(orjson.loads(line))
    except LabError as error:
        return {"error": str(error)}
    except (subprocess.CalledProcessError, OSError, ValueError, KeyError) as error:
        return {"error": f"the lab could not: {error!r}"}


def main() -> None:
    """`python -m testbed.machines.lab.supervisor NAME KEY`: a lab whose plan is saved, the public key that may log in.

    Says `up` on standard output when all machines are, or in one line why they are not.
    """
    name, authorized_key = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    state = load_state(state_dir(name))
    assert state is not None, "saved by who starts a supervisor"
    with contextlib.ExitStack() as cleanup:
        try:
            lab, server = _make(state.plan, authorized_key, cleanup)
        except (LabError, subprocess.CalledProcessError, OSError) as error:
            print(error, flush=True)
            sys.exit(1)
        sys.stdout.buffer.write(UP)
        sys.stdout.flush()
        serve(lab, server)


def _make(plan: LabPlan, authorized_key: str, cleanup: contextlib.ExitStack) -> tuple[Lab, socket.socket]:
    LabState(plan, find_processes([os.getpid()])).save()
    for folder in ("control", "ssh", "log", "homes", "stage"):
        (plan.state_dir / folder).mkdir(mode=0o700)
    host_netns = os.open("/proc/self/ns/net", os.O_RDONLY)
    if ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0:
        raise LabError("the kernel does not let us make network namespaces: in a container, run it --privileged")
    server = cleanup.enter_context(socket.socket(socket.AF_UNIX))
    server.bind(str(plan.state_dir / SOCKET))
    write_login_files(plan, plan.state_dir / "ssh")
    switch = Switch(plan, host_netns)
    switch.open()
    lab = Lab(plan, switch, authorized_key)
    cleanup.callback(lab.end)
    lab.power_on(plan.machines)
    server.listen()
    return lab, server


if __name__ == "__main__":
    main()
