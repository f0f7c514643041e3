"""What recovery is judged against: the rule of the scenario, and the errors that there were before any fault."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from testbed.results.tables.columns import Floats, Mask
from testbed.scenario import RecoveryRule

FALSE_ALARMS = 0.01
"""Of how many aftermaths in which nothing but the steady phase's own errors happened one may show an outage."""
LOOKS_PER_WINDOW = 2
"""Windows overlap, so that those that begin within one are wrong together: they count as so many."""


@dataclass(frozen=True, slots=True)
class Steady:
    """How clients fared before any fault. What was not ok then is no fault's doing: recovery is judged against it."""

    sent: int = 0
    not_ok: int = 0
    rule: RecoveryRule = field(default_factory=RecoveryRule)

    @property
    def not_ok_share(self) -> float:
        return self.not_ok / self.sent if self.sent else 0.0

    @property
    def below_target(self) -> bool:
        return self.not_ok_share > 1 - self.rule.at_least

    @property
    def counts(self) -> bool:
        """Whether there are errors that recovery is relative to."""
        return self.rule.relative_to_steady and self.not_ok > 0

    def is_worse(self, not_ok: Floats, sent: Floats, seconds: float) -> Mask:
        """Which of the windows with `sent` requests, all within `seconds`, are neither good enough nor explained."""
        # The margin keeps 99 of 100 from failing by a rounding of 0.01 x 100.
        worse: Mask = not_ok > (1 - self.rule.at_least) * sent + 1e-9
        return worse & ~self._explains(not_ok, sent, seconds)

    def _explains(self, not_ok: Floats, sent: Floats, seconds: float) -> Mask:
        """Whether chance alone can have made a window with `sent` requests so bad, one of those within `seconds`.

        The share of errors is taken as the steady phase's, plus its standard error. By Chernoff and Hoeffding (1963),
        a share of `a` or more in n requests comes with a probability of at most exp(-n KL(a || share)); a window is
        worse than steady where that is less than `FALSE_ALARMS`, divided by the number of looks.
        """
        explained: Mask
        if not self.counts:
            explained = not_ok == 0
            return explained
        share = min((self.not_ok + self.not_ok**0.5) / self.sent, 1 - 1e-9)
        seen = not_ok / sent
        looks = LOOKS_PER_WINDOW * max(seconds / self.rule.window_s, 1.0)
        explained = (seen <= share) | (sent * _divergence(seen, share) <= np.log(looks / FALSE_ALARMS))
        return explained

    def outage_in(self, not_ok: Mask) -> int:
        """How many of a window's requests, from its first on, belong to an outage that ends in it: the likeliest
        number.

        The errors of those have a level of their own, the others' is the steady phase's.
        """
        if not self.counts:
            return 1
        sent = np.arange(1, len(not_ok) + 1, dtype=np.float64)
        seen, usual = np.cumsum(not_ok) / sent, min(self.not_ok_share, 1 - 1e-9)
        return int(np.argmax(np.where(seen > usual, sent * _divergence(seen, usual), 0.0))) + 1


def _divergence(seen: Floats, share: float) -> Floats:
    """Kullback-Leibler divergence of two chances, in nats."""
    ok = 1 - seen
    bad_part: Floats = seen * np.log(np.where(seen > 0, seen, 1.0) / share)
    ok_part: Floats = ok * np.log(np.where(ok > 0, ok, 1.0) / (1 - share))
    return bad_part + ok_part
