"""Which peers are there, by when they were heard."""

from __future__ import annotations


class Heard:
    """A peer that has come back is heard by some before others have reached it. Who leaves leadership to it at once has
    it ask for votes that do not arrive, and then nobody leads until the next election."""

    def __init__(self, timeout_s: float) -> None:
        """That of elections: who is silent for so long is gone, and who is back is there after as long."""
        self._timeout_s = timeout_s
        self._times_s: dict[str, tuple[float, float]] = {}
        """Since when each was heard without a gap, and when last."""

    def hear(self, name: str, now_s: float) -> None:
        since_s, last_s = self._times_s.get(name, (now_s, now_s))
        self._times_s[name] = (since_s if now_s < last_s + self._timeout_s else now_s), now_s

    def is_there(self, name: str, now_s: float) -> bool:
        if name not in self._times_s:
            return False
        since_s, last_s = self._times_s[name]
        return since_s + self._timeout_s <= now_s < last_s + self._timeout_s
