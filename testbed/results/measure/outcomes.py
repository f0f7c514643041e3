"""How many requests were not ok."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.results.tables.columns import Mask


@dataclass(frozen=True, slots=True)
class Errors:
    failed: int = 0
    unknown: int = 0

    @property
    def all(self) -> int:
        return self.failed + self.unknown

    @classmethod
    def among(cls, not_ok: Mask, failed: Mask) -> Errors:
        """Of requests, by masks of one length."""
        all_failed = int((not_ok & failed).sum())
        return cls(all_failed, int(not_ok.sum()) - all_failed)
