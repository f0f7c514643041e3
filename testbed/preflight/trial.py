"""Tries the machines of a cluster file: the head, then from there all workers at once, as Ray logs in to them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson

from testbed.preflight.cluster_file import ClusterFile, read_cluster_file
from testbed.preflight.machines import MachineReport, shortcomings
from testbed.preflight.ssh import Logins
from testbed.scenario.problems import Path as KeyPath
from testbed.scenario.problems import ScenarioError

ANSWER_TIMEOUT_S = 30.0
COMMAND = "bash --login -c -i 'PATH=~/testbed-env/bin:$PATH python3 -'"
"""In a shell as Ray starts it: what ~/.bashrc does to the path counts."""
QUESTIONS = Path(__file__).with_name("questions.py")


class NoAnswer(Exception):
    """Why not, to be read on from the name of a machine."""


def try_machines(path: Path) -> dict[str, MachineReport]:
    """What each machine says of itself, by address, the head first. Takes less than a minute, whatever they do.

    Raises ScenarioError with all that is wrong, each with its place in the file. Without a head, workers are not tried.
    """
    file, source = read_cluster_file(path)
    provider, logins = file.provider, _logins(file)
    reports: dict[str, MachineReport] = {}

    def note(address: str, written_at: KeyPath, answer: Callable[[], MachineReport]) -> None:
        try:
            reports[address] = answer()
            wrong = list(shortcomings(reports[address], reports[provider.head_ip], file.makes_environment))
        except NoAnswer as reason:
            wrong = [str(reason)]
        for each in wrong:
            source.report(written_at, f"{address} {each}")

    note(provider.head_ip, ("provider", "head_ip"), lambda: _ask(logins, logins.on_head(COMMAND)))
    if provider.head_ip in reports:
        with ThreadPoolExecutor(max_workers=len(provider.worker_ips) or 1) as pool:
            ways = [logins.on_worker(address, COMMAND) for address in provider.worker_ips]
            answers = [pool.submit(_ask, logins, way) for way in ways]
        for index, (address, answer) in enumerate(zip(provider.worker_ips, answers, strict=True)):
            note(address, ("provider", "worker_ips", index), answer.result)
    if source.problems:
        raise ScenarioError(source.problems)
    return reports


def _logins(file: ClusterFile) -> Logins:
    head = file.provider.external_head_ip or file.provider.head_ip
    return Logins(file.auth.ssh_user, file.auth.ssh_private_key, head, file.auth.ssh_proxy_command)


def _ask(logins: Logins, way: list[str]) -> MachineReport:
    with QUESTIONS.open("rb") as questions:
        try:
            asked = subprocess.run(way, stdin=questions, capture_output=True, timeout=ANSWER_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise NoAnswer(f"gives no answer within {ANSWER_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise NoAnswer(f"cannot be tried: {error.strerror}: {error.filename}") from None
    # What a login prints of its own accord comes before.
    for line in reversed(asked.stdout.splitlines()):
        if line.startswith(b'{"testbed_preflight"'):
            return MachineReport(**orjson.loads(line)["testbed_preflight"])
    raise NoAnswer(logins.why_not(asked.returncode, asked.stderr.decode(errors="replace")))
