from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MachinePowerOff:
    machine: str
    command: tuple[str, ...]
