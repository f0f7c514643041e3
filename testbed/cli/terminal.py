"""Exit codes, how errors are shown, and how wide the terminal is."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer
from rich.console import Console

EXIT_BAD_INPUT = 2
EXIT_INVALID = 3
REPORT_COLUMNS = 110


def fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(code)


def console() -> Console:
    """As wide as the terminal or $COLUMNS says, and wide enough for most tables where there is neither."""
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else REPORT_COLUMNS
    return Console(highlight=False, width=width)
