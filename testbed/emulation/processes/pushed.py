"""Every resource that was ever pushed, each content once: what the rows of `pushes` refer to by number.

A cluster says the same over and over, with an endpoint more or less: what proxies share is looked at once, and what is
new is a line of JSON in a stream that is compressed as it grows (30 times and more).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import orjson

from testbed.emulation.processes.protobuf import SHARED, Same

_DIGEST_BYTES = 16
_LEVEL = 1
_PIECE_BYTES = 1 << 20


class Contents:
    """Of what one process pushes."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._new: list[tuple[bytes, bytes]] = []
        self._digest = lru_cache(maxsize=SHARED)(self._digest_of)

    def digests(self, resources: Sequence[Mapping[str, Any]]) -> tuple[bytes, ...]:
        """Of each of them. They must not be changed any more."""
        return tuple([self._digest(Same(each)) for each in resources])

    def take_new(self) -> tuple[tuple[bytes, bytes], ...]:
        """Digests and contents that were not there at the last call."""
        new, self._new = tuple(self._new), []
        return new

    def _digest_of(self, same: Same) -> bytes:
        line = orjson.dumps(same.resource)
        digest = blake2b(line, digest_size=_DIGEST_BYTES).digest()
        if digest not in self._seen:
            self._seen.add(digest)
            self._new.append((digest, line))
        return digest


class PushedResources:
    """Numbers count from 0, in the order in which contents were first seen, whichever process pushed them."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._lists: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._compressor = zlib.compressobj(_LEVEL)
        self._compressed = bytearray()

    def add(self, contents: Iterable[tuple[bytes, bytes]]) -> None:
        for digest, line in contents:
            if digest not in self._numbers:
                self._numbers[digest] = len(self._numbers)
                self._compressed += self._compressor.compress(line + b"\n")

    def __len__(self) -> int:
        return len(self._numbers)

    def numbers(self, digests: Iterable[bytes]) -> tuple[int, ...]:
        """Of each of them, which were added before; the same object for the same numbers."""
        numbers = tuple([self._numbers[each] for each in digests])
        return self._lists.setdefault(numbers, numbers)

    def compressed(self) -> bytes:
        """All so far, for `lines`."""
        return bytes(self._compressed) + self._compressor.copy().flush()


def lines(compressed: bytes) -> Iterator[bytes]:
    """The contents by number, as JSON."""
    decompressor = zlib.decompressobj()
    rest = b""
    while piece := decompressor.decompress(compressed, _PIECE_BYTES):
        compressed = decompressor.unconsumed_tail
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
