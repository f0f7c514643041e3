"""How the supervisor starts a load process. Importable anywhere: it imports neither Locust nor gevent."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from loadgen import settings

_PLUGIN = Path(__file__).with_name("plugin.py")
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
