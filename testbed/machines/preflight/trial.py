"""Tries the machines of a cluster file: the head from here, then from there all workers, as Ray logs in to them."""

from __future__ import annotations

import shutil
import socket
from math import ceil
from pathlib import Path

import orjson

from testbed.documents.problems import ScenarioError
from testbed.machines.preflight.cluster_file import ClusterFile, read_cluster_file
from testbed.machines.preflight.machines import MachineReport, shortcomings
from testbed.machines.preflight.ssh import WITHIN_S, Answer, NoAnswer, answered, in_login_shell, log_in, options

AT_ONCE = 16
QUESTIONS = in_login_shell(Path(__file__).with_name("questions.py").read_text())
LOGINS = in_login_shell(Path(__file__).with_name("logins.py").read_text())
HEAD = ("provider", "head_ip")


def try_machines(path: Path) -> dict[str, MachineReport]:
    """What each machine says of itself, by address, the head first.

    A login may take 30 s, and 16 workers are tried at once. Raises ScenarioError with all that is wrong, each with its
    place in the file. Workers are tried when nothing is wrong with the head.
    """
    file, source = read_cluster_file(path)
    reports: dict[str, MachineReport] = {}
    try:
        head = reports[file.provider.head_ip] = _ask_head(file)
        for each in shortcomings(head, head, file.makes_environment):
            source.report(HEAD, f"{file.provider.head_ip} {each}")
        answers = {} if source.problems else _log_in_to_workers(file)
    except NoAnswer as reason:
        source.report(HEAD, f"{file.provider.head_ip} {reason}")
    else:
        for index, (address, answer) in enumerate(answers.items()):
            try:
                reports[address] = MachineReport(**answered(answer, file.auth.ssh_user, file.auth.ssh_private_key))
                wrong = list(shortcomings(reports[address], head, file.makes_environment))
            except NoAnswer as reason:
                wrong = [str(reason)]
            for each in wrong:
                source.report(("provider", "worker_ips", index), f"{address} {each}")
    if source.problems:
        raise ScenarioError(source.problems)
    return reports


def _ask_head(file: ClusterFile) -> MachineReport:
    if missing := [program for program in ("ssh", "rsync") if shutil.which(program) is None]:
        raise NoAnswer(f"cannot be tried: {' and '.join(missing)} would be needed here")
    answer = log_in(_to_head(file, QUESTIONS), b"", WITHIN_S)
    return MachineReport(**answered(answer, file.auth.ssh_user, file.auth.ssh_private_key))


def _log_in_to_workers(file: ClusterFile) -> dict[str, Answer]:
    """By address, in the order of the file."""
    workers, auth = file.provider.worker_ips, file.auth
    if not workers:
        return {}
    task = {
        "workers": workers,
        "at_once": AT_ONCE,
        "key": None if auth.ssh_private_key is None else Path(auth.ssh_private_key).read_text("latin-1"),
        "options": options(auth.ssh_user),
        "command": QUESTIONS,
        "within_s": WITHIN_S,
    }
    within_s = WITHIN_S * (1 + ceil(len(workers) / AT_ONCE))
    answer = log_in(_to_head(file, LOGINS), orjson.dumps(task) + b"\n", within_s)
    answers = answered(answer, auth.ssh_user, auth.ssh_private_key)
    return {address: Answer(**answers[address]) for address in workers}


def _to_head(file: ClusterFile, command: str) -> list[str]:
    auth = file.auth
    try:
        # As Ray does; so a name that only ssh's configuration knows is none.
        address = socket.gethostbyname(file.provider.head_from_here)
    except (OSError, ValueError) as error:
        raise NoAnswer(f"cannot be reached (no IPv4 address: {error})") from None
    key = [] if auth.ssh_private_key is None else ["-i", auth.ssh_private_key]
    proxy = [] if auth.ssh_proxy_command is None else ["-o", f"ProxyCommand={auth.ssh_proxy_command}"]
    return ["ssh", *key, *options(auth.ssh_user), *proxy, "--", address, command]
