"""Powering a machine off: the user's command for it, and which machines it cannot be done to."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Sequence

from testbed.emulation.driver.ray_connection import RayMachine
from testbed.faults.effects import PowerOffMachine

ENDS_WITHIN_S = 30.0
"""From the order to the silence, and for the command itself."""


class PowerOffFailed(Exception):
    """The command that should have powered a machine off did not."""


def why_not_powered_off(effect: PowerOffMachine, machines: Sequence[RayMachine]) -> str | None:
    """Why an effect means no machine of the run, or one that the run cannot do without, if so."""
    machine = next((each for each in machines if effect.machine in (each.name, each.address)), None)
    if machine is None:
        return f"this run has no machine {effect.machine}, only {', '.join(each.name for each in machines)}"
    if machine.is_driver or machine.is_head:
        what = "drives the run" if machine.is_driver else "is Ray's head"
        return f"machine {effect.machine} {what} and cannot be powered off"
    return None


class PowerOffCommand:
    """The running command of one effect; an async context, at whose end it is gone. Raises PowerOffFailed."""

    def __init__(self, effect: PowerOffMachine) -> None:
        self._machine = effect.machine
        self._command = effect.command
        self.words = " ".join(effect.command)
        # Not a pipe: what the command leaves in the background may keep that open.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the context
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> PowerOffCommand:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=self._output, stderr=self._output
            )
        except OSError as error:
            raise PowerOffFailed(f"`{self.words}` should power {self._machine} off: {error.strerror}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._output.close()

    def check(self) -> None:
        """Raises PowerOffFailed when the command has ended with an exit code that says so."""
        code = self._process.returncode
        if code:
            self._output.seek(0)
            said = self._output.read().decode(errors="replace").strip()
            raise PowerOffFailed(f"`{self.words}` should power {self._machine} off, but ended with {code}: {said}")
