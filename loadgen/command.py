"""How the supervisor starts a load process. Importable anywhere: it imports neither Locust nor gevent."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path

from loadgen import settings

_PLUGIN = Path(__file__).with_name("plugin.py")
_GUEST_PLUGIN = Path(__file__).with_name("guest_plugin.py")
_STOP_MARGIN_S = 1


def command(settings_path: Path) -> list[str]:
    """The argv of the load process; it also needs `TESTBED_LOAD=<settings_path>` in its environment.

    Every user is spawned at once, and at the end Locust waits for requests under way until all must have timed out.
    """
    wanted = settings.load(settings_path)
    locustfiles = [_PLUGIN] if wanted.locustfile is None else [_PLUGIN, wanted.locustfile]
    return [
        *(sys.executable, "-m", "locust"),
        *("-f", ",".join(str(path) for path in locustfiles)),
        *("--headless", "--only-summary"),
        *("--users", str(wanted.locust_users), "--spawn-rate", str(wanted.locust_users)),
        *("--stop-timeout", str(math.ceil(wanted.timeout_s) + _STOP_MARGIN_S)),
    ]


def page_command(settings_path: Path, port: int, locustfile: Path | None = None) -> list[str]:
    """The argv of a Locust with its web page on loopback, which joins a cluster that is up. The same environment.

    Without a `locustfile` its users send the requests that are declared.
    """
    wanted = settings.load(settings_path)
    locustfiles = [_GUEST_PLUGIN] if locustfile is None else [_GUEST_PLUGIN, locustfile]
    return [
        *(sys.executable, "-m", "locust"),
        *("-f", ",".join(str(path) for path in locustfiles)),
        *("--web-host", "127.0.0.1", "--web-port", str(port)),
        *("--stop-timeout", str(math.ceil(wanted.timeout_s) + _STOP_MARGIN_S)),
    ]


def guest_line(settings_path: Path) -> str:
    """What somebody types who has a locustfile `my.py`; more of Locust's options may follow."""
    wanted = settings.load(settings_path)
    arguments = [
        *(sys.executable, "-m", "locust"),
        *("-f", f"{_GUEST_PLUGIN},my.py"),
        *("--stop-timeout", str(math.ceil(wanted.timeout_s) + _STOP_MARGIN_S)),
    ]
    return f"{settings.ENVIRONMENT_VARIABLE}={shlex.quote(str(settings_path))} {shlex.join(arguments)}"
