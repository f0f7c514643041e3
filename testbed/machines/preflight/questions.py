"""Is run on a machine that is tried, by the `python3` that Ray would run there: prints one line of JSON.

The machine need not have this package, and may have any Python 3.
"""

import json
import os
import platform
import shutil


def ray_version() -> "str | None":
    try:
        from importlib.metadata import version

        return version("ray")
    except Exception:
        return None


def makes_environments() -> bool:
    try:
        import ensurepip
    except ImportError:
        return False
    return ensurepip is not None


def zone() -> "str | None":
    try:
        with open(os.path.expanduser("~/.testbed-zone"), errors="replace") as file:
            return file.read().strip() or None
    except OSError:
        return None


def open_token() -> bool:
    try:
        return bool(os.stat(os.path.expanduser("~/.ray/auth_token")).st_mode & 0o077)
    except OSError:
        return False


report = {
    "python": platform.python_version(),
    "ray": ray_version(),
    "zone": zone(),
    "has_ssh": shutil.which("ssh") is not None,
    "has_rsync": shutil.which("rsync") is not None,
    "has_environment": os.path.exists(os.path.expanduser("~/testbed-env")),
    "makes_environments": makes_environments(),
    "open_token": open_token(),
}
# A shell's start-up files may have left a line unfinished.
print("\n" + json.dumps({"testbed_preflight": report}))
