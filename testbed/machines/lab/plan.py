"""Which machines a lab has, with which names, addresses, zones and clocks. Pure: starts and asks nothing."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from testbed.objects.places import DNS_LABEL

MAX_MACHINES = 16
DEFAULT_NAME = "testbed-lab"
DEFAULT_ZONES = ("east-a", "east-b", "east-c")
DEFAULT_SUBNET = "198.18.0.0/24"
RESERVED_NETWORK = ipaddress.IPv4Network("198.18.0.0/15")
"""For benchmarks between network devices (RFC 2544), so that it is nobody's network."""
FIRST_HOST_NUMBER = 11
CLOCK_STEP_S = 1000
"""Machine number n's monotonic clock is n steps ahead of the host's: far more than any error of synchronisation."""
_NAME = re.compile(r"testbed-[a-z0-9]{1,7}")


class LabError(Exception):
    """What a user or the host can cause; the message is one line and says what would be right."""


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """One machine; `zone` is None for the head, which belongs to none. `address` is without prefix length."""

    name: str
    address: str
    mac: str
    zone: str | None
    clock_offset_s: int


@dataclass(frozen=True, slots=True)
class LabPlan:
    """A whole lab. Raises LabError for what cannot be made."""

    count: int = 4
    zones: tuple[str, ...] = DEFAULT_ZONES
    name: str = DEFAULT_NAME
    subnet: str = DEFAULT_SUBNET

    def __post_init__(self) -> None:
        check_name(self.name)
        if not 1 <= self.count <= MAX_MACHINES:
            raise LabError(f"--machines {self.count}: a lab has 1 to {MAX_MACHINES} machines")
        if not self.zones:
            raise LabError("--zones: at least one zone is needed, such as east-a")
        for zone in self.zones:
            if not re.fullmatch(DNS_LABEL, zone):
                raise LabError(f"--zones: {zone!r} is no zone; a name such as east-a is: letters, digits and dashes")
        try:
            network = ipaddress.IPv4Network(self.subnet)
        except ValueError as error:
            raise LabError(f"--subnet {self.subnet}: {error}") from None
        if network.prefixlen != 24 or not network.subnet_of(RESERVED_NETWORK):
            raise LabError(f"--subnet {self.subnet}: must be a /24 out of {RESERVED_NETWORK}")

    @property
    def machines(self) -> tuple[MachinePlan, ...]:
        """m1, the head, then workers with the zones in turn."""
        return tuple(
            MachinePlan(
                name=f"m{number}",
                address=self._address(FIRST_HOST_NUMBER + number - 1),
                mac=mac_of(self._address(FIRST_HOST_NUMBER + number - 1)),
                zone=None if number == 1 else self.zones[(number - 2) % len(self.zones)],
                clock_offset_s=number * CLOCK_STEP_S,
            )
            for number in range(1, self.count + 1)
        )

    @property
    def host_address(self) -> str:
        return self._address(1)

    @property
    def state_dir(self) -> Path:
        return state_dir(self.name)

    def machine(self, name: str) -> MachinePlan:
        """By its name or its address, which are those of its Ray node. Raises LabError for what no machine has."""
        machines = {name: machine for machine in self.machines for name in (machine.name, machine.address)}
        if name not in machines:
            nearest = get_close_matches(name, machines, n=1, cutoff=0.0)
            raise LabError(f"no machine {name!r} in this lab: did you mean {nearest[0]}? (m1 to m{self.count})")
        return machines[name]

    def _address(self, number: int) -> str:
        return str(ipaddress.IPv4Network(self.subnet)[number])


def check_name(name: str) -> None:
    """The name is that of a network link and of a folder that is removed, so only our own will do. Raises LabError."""
    if not _NAME.fullmatch(name):
        raise LabError(f"{name!r} is no name for a lab: testbed- and up to 7 letters or digits, such as {DEFAULT_NAME}")


def state_dir(name: str) -> Path:
    """Everything that a lab keeps; only root may look into it."""
    return Path("/var/lib") / name


def mac_of(address: str) -> str:
    """A locally administered hardware address that tells the IPv4 address."""
    return ":".join(["02", "00", *(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)])
