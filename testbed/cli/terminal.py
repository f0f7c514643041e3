"""Exit codes, how errors are shown, how wide the terminal is, and that it may be closed."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, NoReturn

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


def outlast_terminal() -> None:
    """From now on a terminal that is closed is no error: what is printed after that is seen by nobody."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream.isatty():
            raw = _Terminal(stream.fileno(), "wb", closefd=False)
            buffered = io.BufferedWriter(raw)
            lasting = io.TextIOWrapper(buffered, stream.encoding, stream.errors, line_buffering=stream.line_buffering)
            setattr(sys, name, lasting)


class _Terminal(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return len(data)
