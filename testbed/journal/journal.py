"""The disk of one replica: a file of records, of which a crash can tear the last one only.

A record is a magic number, the length of its body, the body's checksum (CRC-32), and the body: the writes that were
made durable together, in a form that can be chosen. The next one is not begun before the disk has it (fsync). So what
is damaged at the end of the file was never acknowledged, and is cut off; what is damaged with a whole record behind it
was, and nobody may go on without it. The first record is all that was stored when the file was made: where a snapshot
takes the place of entries, a new file takes the place of the old one.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

from testbed.consensus.log import Entry, Log, Snapshot
from testbed.consensus.outputs import Write
from testbed.consensus.storage import Stored
from testbed.journal.replacing import replace_durably

_MAGIC = b"\xabLOG"
_HEAD = struct.Struct(">4sII")
_FILE = "journal"

DAMAGED, DISK_FAILED = 65, 74
"""The exit codes of a process that cannot trust its disk, and of one whose disk took no more: sysexits.h, EX_DATAERR
and EX_IOERR."""


class Form(Protocol):
    """How bodies are written, and what is read becomes entries and snapshots again."""

    def dumps(self, body: object, /) -> bytes: ...
    def loads(self, body: bytes, /) -> Any: ...
    def entry(self, read: Any, /) -> Entry: ...
    def snapshot(self, read: Any, /) -> Snapshot: ...


class Pickled:
    """Of whoever puts Python's own objects into the log. Only its own disk is read."""

    dumps = staticmethod(pickle.dumps)
    loads = staticmethod(pickle.loads)

    @staticmethod
    def entry(read: Entry) -> Entry:
        return read

    @staticmethod
    def snapshot(read: Snapshot) -> Snapshot:
        return read


class Damaged(Exception):
    """What was stored cannot be read, and must not be guessed. The text says where and what can be done."""


class Journal:
    """Of one replica, in a folder of its own. For one thread at a time."""

    def __init__(self, folder: Path, first: Stored, form: Form) -> None:
        """Opens what there is, or begins with `first`. Raises Damaged, and OSError as the disk does."""
        self.path = folder / _FILE
        self._form = form
        self.cut_off_bytes = 0
        """What a crash had left of a record, and is gone now."""
        folder.mkdir(parents=True, exist_ok=True)
        self._term, self._vote, self._log = first.term, first.vote, Log(first.snapshot, first.entries)
        if not self.path.exists():
            self._renew()
            return
        data = self.path.read_bytes()
        good = self._read(data)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        if good < len(data):
            self.cut_off_bytes = len(data) - good
            os.ftruncate(self._fd, good)
            os.fsync(self._fd)

    @property
    def stored(self) -> Stored:
        return Stored(self._term, self._vote, self._log.snapshot, self._log.entries)

    def append(self, writes: Sequence[Write]) -> None:
        """They are durable when this returns. After an OSError nobody knows, and the journal must be opened again."""
        for write in writes:
            self._take(write)
        if any(write.snapshot for write in writes):
            os.close(self._fd)
            self._renew()
        else:
            body = [{"term": each.term, "vote": each.vote, "entries": each.entries} for each in writes]
            _write_all(self._fd, self._record(body))
            os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def _take(self, write: Write) -> None:
        self._term, self._vote = write.term, write.vote
        if write.snapshot:
            self._log.replace_by(write.snapshot)
        if write.entries:
            self._log.put(write.entries)

    def _renew(self) -> None:
        """A file with all that is stored. It takes the place of the old one at once, or not at all."""
        new = self.path.with_suffix(".new")
        self._fd = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o644)
        first = {"term": self._term, "vote": self._vote, "snapshot": self._log.snapshot, "entries": self._log.entries}
        _write_all(self._fd, self._record(first))
        os.fsync(self._fd)
        replace_durably(new, self.path)

    def _read(self, data: bytes) -> int:
        """Take all that is whole; returns where that ends."""
        at = 0
        while at < len(data):
            body = _body_at(data, at)
            if body is None:
                self._refuse_unless_torn(data, at)
                return at
            self._take_body(self._form.loads(body), first=at == 0)
            at += _HEAD.size + len(body)
        return at

    def _take_body(self, body: Any, first: bool) -> None:
        if first:
            entries = tuple(map(self._form.entry, body["entries"]))
            self._term, self._vote = body["term"], body["vote"]
            self._log = Log(self._form.snapshot(body["snapshot"]), entries)
            return
        for write in body:
            entries = tuple(map(self._form.entry, write["entries"]))
            self._take(Write(0, write["term"], write["vote"], entries, None))

    def _record(self, body: object) -> bytes:
        data = self._form.dumps(body)
        return _HEAD.pack(_MAGIC, len(data), crc32(data)) + data

    def _refuse_unless_torn(self, data: bytes, at: int) -> None:
        if at == 0:
            # It was renamed only when it was whole.
            raise Damaged(
                f"{self.path}: the record at byte 0 is damaged, and everything was built on it; the replica must not "
                "start: remove its volume, and let it join again as a new one"
            )
        after = data.find(_MAGIC, at + 1)
        while after >= 0:
            if _body_at(data, after) is not None:
                raise Damaged(
                    f"{self.path}: the record at byte {at} is damaged, and whole ones follow at byte {after}: no crash "
                    "does that, and what it held was acknowledged. The replica must not start: remove its volume, and "
                    "let it join again as a new one"
                )
            after = data.find(_MAGIC, after + 1)


def _body_at(data: bytes, at: int) -> bytes | None:
    """The body of the record that begins there; None where none does, or not a whole one."""
    if at + _HEAD.size > len(data):
        return None
    magic, length, checksum = _HEAD.unpack_from(data, at)
    body = data[at + _HEAD.size : at + _HEAD.size + length]
    return body if magic == _MAGIC and len(body) == length and crc32(body) == checksum else None


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
