"""Logins with `ssh`, which is what Ray's launcher uses, and in words why one fails."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

CONNECT_TIMEOUT_S = 5
COMMAND_NOT_FOUND = 127
_REFUSED = ("Permission denied", "Too many authentication failures")
_KEY_UNFIT = "Load key "
_UNREACHED = ("connect to host", "connect failed: ", "Connection timed out", "Could not resolve hostname")


@dataclass(frozen=True, slots=True)
class Logins:
    """To the head, and from it to the workers, as Ray logs in. Without a key, ssh looks for one as it is configured."""

    user: str
    key: Path | None
    head: str
    proxy_command: str | None = None
    """For the way to the head."""

    def on_head(self, command: str) -> list[str]:
        """The command line that runs a shell command there."""
        return [*self._to_head(), command]

    def on_worker(self, address: str, command: str) -> list[str]:
        """The key goes through the head, which has it only after `ray up`; without one it is the head that logs in."""
        if self.key is None:
            return self.on_head(shlex.join([*self._ssh(address), command]))
        # ssh puts %h and %p into a proxy command, and % for %%, which is left to the command of the one within.
        through = shlex.join(self._to_head()).replace("%", "%%")
        return [*self._ssh(address, f"ProxyCommand={through} -W %h:%p"), command]

    def why_not(self, exit_code: int, said: str) -> str:
        """In words, why a command had no answer, with what ssh said."""
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = lines[-1] if lines else f"exit code {exit_code}"
        if refused := [line for line in lines if any(words in line for words in _REFUSED)]:
            why = [*(line for line in lines if line.startswith(_KEY_UNFIT)), refused[-1]]
            by = "" if self.key is None else f" with the key {self.key}"
            return f"does not let {self.user} in{by} ({'; '.join(why)})"
        if unreached := [line for line in lines if any(words in line for words in _UNREACHED)]:
            return f"cannot be reached ({unreached[0]})"
        if exit_code == COMMAND_NOT_FOUND:
            return f"has no python3 ({last})"
        return f"gives no answer ({last})"

    def _to_head(self) -> list[str]:
        return self._ssh(self.head, *([] if self.proxy_command is None else [f"ProxyCommand={self.proxy_command}"]))

    def _ssh(self, address: str, *options: str) -> list[str]:
        """Asks nobody for anything, and remembers no host: machines of a cluster come and go."""
        options = (
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            f"ConnectTimeout={CONNECT_TIMEOUT_S}",
            *options,
        )
        key = [] if self.key is None else ["-i", str(self.key), "-o", "IdentitiesOnly=yes"]
        return ["ssh", *key, *(part for option in options for part in ("-o", option)), f"{self.user}@{address}"]
