"""Why a locustfile of the user's own cannot be used, in one line for the user. Knows nothing of Locust."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType


def complaint(locustfile: Path, error: BaseException, at: TracebackType | None) -> str:
    """What went wrong while the file was loaded, and in which of its lines."""
    frames = traceback.extract_tb(at)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == locustfile]
    if not lines and any(frame.name == "load_locustfile_pytest" for frame in frames):
        # Where there is no user class, Locust looks for tests of pytest, which need not even be installed.
        return f"{locustfile}: defines no Locust user"
    where = f"{locustfile}:{lines[-1]}" if lines else str(locustfile)
    what, *_ = str(error).splitlines() or [""]
    return f"{where}: {type(error).__name__}: {what}"
