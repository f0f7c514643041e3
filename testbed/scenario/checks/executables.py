"""Whether a program can be started on the machine that asks. Imports no Pydantic: actors ask too."""

from __future__ import annotations

import os
import shutil


def why_not_startable(program: str, search_path: str | None = None) -> str | None:
    """Why the first word of a command cannot be started, None if it can be, or if only its pod knows what it means.

    `search_path` takes the place of the PATH of this process.
    """
    search = os.environ.get("PATH", os.defpath) if search_path is None else search_path
    if "$(" in program or "$(" in search or shutil.which(program, path=search) is not None:
        return None
    if "/" not in program:
        return f"there is no program {program!r} in PATH"
    return f"{program!r} cannot be executed" if os.path.exists(program) else f"there is no file {program!r}"
