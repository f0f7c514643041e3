"""Every resource that was ever pushed, each content once: what the rows of `pushes` refer to by number.

A cluster says the same over and over, with an endpoint more or less: what proxies share is looked at once, and what is
new is a line of JSON in a stream that is compressed as it grows (30 times and more).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import orjson

from testbed.emulation.processes.protobuf import SHARED, Same

_DIGEST_BYTES = 16
_LEVEL = 1
_PIECE_BYTES = 1 << 20


class PushedResources:
    """Numbers count from 0, in the order in which contents were first seen."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._lists: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._compressor = zlib.compressobj(_LEVEL)
        self._compressed = bytearray()
        self._number = lru_cache(maxsize=SHARED)(self._number_of)

    def numbers(self, resources: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        """Of each of them; the same object for the same numbers. They must not be changed any more."""
        numbers = tuple([self._number(Same(each)) for each in resources])
        return self._lists.setdefault(numbers, numbers)

    def compressed(self) -> bytes:
        """All so far, for `lines`."""
        return bytes(self._compressed) + self._compressor.copy().flush()

    def _number_of(self, same: Same) -> int:
        line = orjson.dumps(same.resource)
        digest = blake2b(line, digest_size=_DIGEST_BYTES).digest()
        if digest not in self._numbers:
            self._numbers[digest] = len(self._numbers)
            self._compressed += self._compressor.compress(line + b"\n")
        return self._numbers[digest]


def lines(compressed: bytes) -> Iterator[bytes]:
    """The contents by number, as JSON."""
    decompressor = zlib.decompressobj()
    rest = b""
    while piece := decompressor.decompress(compressed, _PIECE_BYTES):
        compressed = decompressor.unconsumed_tail
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
