"""What `ray up` remembers on this host about machines that are no more.

It notes which machines it has set up, and skips the set-up of those: of a lab's next machines, which have nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import orjson


def forget_cluster(head_address: str) -> None:
    """Remove the notes of every cluster whose head has this address; the format is Ray's local node provider's."""
    folder = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray"
    for notes in sorted(folder.glob("cluster-*.state")):
        try:
            machines = orjson.loads(notes.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            continue
        if isinstance(machines, dict) and head_address in machines:
            notes.unlink(missing_ok=True)
            notes.with_suffix(".lock").unlink(missing_ok=True)
