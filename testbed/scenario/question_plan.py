"""How often directed clients ask a router, before anything runs: at first requests, and when answers have expired.

Owns the arithmetic for sessions that take turns as `loadgen.sessions` lets them. Answers are taken to come at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, islice, pairwise
from math import ceil, exp, inf, lgamma, log
from operator import mul

from testbed.scenario.values import ExpectedShares, LoadSource, LoadSpec, Scenario

_TURNS_MAX = 20_000
"""So many requests of a client tell how often it asks."""
_RARE = 1e-9


class _Pace:
    """How often `clients` who take turns send: a Poisson process of that rate, or an `even` one, is shared by them."""

    def __init__(self, rate_per_s: float, clients: int, *, even: bool) -> None:
        self.turn_s = clients / rate_per_s
        self._rate_per_s = rate_per_s
        self._clients = clients
        self.even = even

    def longer_than(self, seconds: float, turns: int) -> list[float]:
        """The chance that more than that has passed 0, 1, 2, ... turns later, for so many of them."""
        if self.even:
            return [float(turn * self.turn_s > seconds) for turn in range(turns)]
        # It has if fewer than all requests of these turns were sent meanwhile.
        mean = self._rate_per_s * seconds
        sent = accumulate(exp(count * log(mean) - mean - lgamma(count + 1)) for count in range(turns * self._clients))
        return [0.0, *islice(sent, self._clients - 1, None, self._clients)][:turns]


def asking_share(load: LoadSpec, until_s: float = inf) -> float | None:
    """The share of requests that ask, of those after the warm-up and before `until_s`.

    None where nobody asks, or nobody knows: users who wait for their answers have no pace of their own, and where an
    answer is kept for about as long as it is to the next request, chance decides for all clients together.
    """
    if load.directed is None or load.ids is None or any(source.rate_per_s is None for source in load.sources):
        return None
    asked = sent = 0.0
    for zone in dict.fromkeys(source.zone for source in load.sources):
        sources = [source for source in load.sources if source.zone == zone]
        pace = _pace_of(sources)
        if load.directed.ttl_s < 1.5 * pace.turn_s and load.ids.session > 1 and not pace.even:
            return None
        asks = _asking(
            load.ids.session, pace, load.directed.ttl_s, min(ceil(load.duration_s / pace.turn_s), _TURNS_MAX)
        )
        # Clients have their turn one after the other, at any time from its beginning to that of the next.
        end_s = min(until_s, load.duration_s)
        counted_s = [
            max(0.0, min(end_s, (turn + 1) * pace.turn_s) - max(load.warmup_s, turn * pace.turn_s))
            for turn in range(len(asks))
        ]
        rate_per_s = sum(source.rate_per_s or 0.0 for source in sources)
        asked += rate_per_s * sum(map(mul, asks, counted_s))
        sent += rate_per_s * sum(counted_s)
    return asked / sent if sent else None


def with_questions(expected: ExpectedShares | None, scenario: Scenario) -> ExpectedShares | None:
    """Of the steady phase."""
    if expected is None:
        return None
    return replace(expected, questions=asking_share(scenario.load, scenario.first_change_s))


def question_lines(scenario: Scenario) -> Iterator[str]:
    """For people."""
    directed = scenario.load.directed
    if directed is None:
        return
    share = asking_share(scenario.load, scenario.first_change_s)
    asks = "nobody can tell how many requests ask" if share is None else f"{share:.2%} of all requests ask"
    yield f"  {asks} a router first, in the steady phase: answers are kept for {directed.ttl_s} s"


def _pace_of(sources: Sequence[LoadSource]) -> _Pace:
    rate_per_s = sum(source.rate_per_s or 0.0 for source in sources)
    return _Pace(rate_per_s, max(1, ceil(rate_per_s)), even=all(source.arrival == "constant" for source in sources))


def _asking(session: int, pace: _Pace, ttl_s: float, turns: int) -> list[float]:
    """The chance that a client asks, for each of its turns from the first on.

    A session asks at its first request, and then as a renewal process: at the first one after the answer has expired.
    At the start clients are somewhere in a session, so that later ones begin at each turn with the chance 1 / session.
    """
    expired = pace.longer_than(ttl_s, min(turns, session))
    again = {later: after - before for later, (before, after) in enumerate(pairwise(expired), start=1)}
    again = {later: chance for later, chance in again.items() if chance > _RARE}
    first = [1.0]
    """Of a session that begins at the first turn."""
    for turn in range(1, turns):
        first.append(sum(chance * first[turn - later] for later, chance in again.items() if later <= turn))
    begun = [0.0, *accumulate(first[:session])]
    return [
        max(0, session - turn) / session * own + begun[min(turn, session)] / session for turn, own in enumerate(first)
    ]
