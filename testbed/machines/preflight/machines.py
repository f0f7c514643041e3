"""What machines say of themselves, and what of that keeps them from being one cluster. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from testbed.objects.places import DNS_LABEL


@dataclass(frozen=True, slots=True)
class MachineReport:
    """Versions are those of the environment `~/testbed-env`, where there is one, else of the `python3` of a login."""

    python: str
    ray: str | None
    zone: str | None
    has_ssh: bool
    has_rsync: bool
    has_environment: bool
    makes_environments: bool
    open_token: bool


def shortcomings(report: MachineReport, head: MachineReport, needs_environment: bool) -> Iterator[str]:
    """To be read on from the name of a machine; `head` is the head's report, for the head too.

    That versions have to agree, Python's patch level included, is a rule of Ray's (`check_version_info`).
    """
    if report is head and not report.has_ssh:
        yield "has no ssh to log in to the workers with: apt-get install -y openssh-client"
    if not report.has_rsync:
        yield "has no rsync: apt-get install -y rsync"
    if report.python != head.python:
        yield f"has Python {report.python} and the head {head.python}: Ray wants the same one, patch level included"
    elif not (3, 11) <= tuple(map(int, report.python.split(".")[:2])) <= (3, 13):
        yield f"has Python {report.python}: 3.11 to 3.13 is needed"
    if None not in (report.ray, head.ray) and report.ray != head.ray:
        anew = "; without ~/testbed-env it is made anew" if report.has_environment else ""
        yield f"has Ray {report.ray} and the head {head.ray}: Ray wants the same one{anew}"
    if needs_environment and not report.has_environment and not report.makes_environments:
        yield "cannot make a virtual environment: apt-get install -y python3-venv"
    if report.open_token:
        yield "has a ~/.ray/auth_token that is open to its other users: chmod 600 ~/.ray/auth_token there"
    if report.zone is not None and not re.fullmatch(DNS_LABEL, report.zone):
        yield f"has {report.zone!r} in ~/.testbed-zone, which is no name of a zone, such as east-a"
