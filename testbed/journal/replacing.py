"""One file takes the place of another, for good."""

from __future__ import annotations

import os
from pathlib import Path


def replace_durably(new: Path, old: Path) -> None:
    """At once or not at all, and durable when this returns: the name is in the folder, which is synced, too. What is in
    `new` must be durable before. Raises OSError."""
    new.replace(old)
    folder = os.open(old.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
