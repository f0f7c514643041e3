"""Process 1 of a machine: makes it a place of its own, runs sshd and reaps what nobody else waits for.

Runs as a file of its own, not as part of the package: it must start where nothing but the interpreter is certain.
The kernel kills everything on the machine when it ends.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson


def main() -> None:
    # The namespaces exist; the settings come when the network card is in.
    sys.stdout.buffer.write(b"born\n")
    sys.stdout.flush()
    settings: dict[str, Any] = orjson.loads(sys.stdin.buffer.readline())
    socket.sethostname(settings["name"])
    for target, contents in settings["private"].items():
        make_private(Path(target), contents, Path(settings["stage"]), [Path(path) for path in settings["visible"]])
    for target, source in settings["files"].items():
        mount("--bind", source, target)
    Path("/run/sshd").mkdir(mode=0o755)
    os.chdir("/")
    sshd = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", settings["sshd_config"]], stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while os.wait()[0] != sshd.pid:
        pass
    sys.exit("sshd ended")


def make_private(target: Path, contents: str, stage: Path, visible: list[Path]) -> None:
    """Mount over `target`: a folder, or an empty tmpfs where `contents` begins with `mode=`.

    What is in `visible` and below the target stays where it is, read-only. It is put together at `stage` because
    nothing below the target can be named once it is covered.
    """
    if contents.startswith("mode="):
        mount("-t", "tmpfs", "-o", f"{contents},nosuid,nodev", "tmpfs", str(stage))
    else:
        mount("--bind", contents, str(stage))
    kept: list[Path] = []
    for path in sorted(visible):
        if target in path.parents and not any(other in path.parents for other in kept):
            place = stage / path.relative_to(target)
            place.mkdir(parents=True, exist_ok=True)
            mount("--bind", str(path), str(place))
            mount("-o", "remount,bind,ro", str(place))
            kept.append(path)
    mount("--move", str(stage), str(target))


def mount(*arguments: str) -> None:
    # Without -n it notes the mount in /run, which is what is being covered.
    subprocess.run(["mount", "-n", *arguments], check=True)


if __name__ == "__main__":
    main()
