"""Which target answers: the least outstanding tokens among those that are well."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections import deque
from collections.abc import Callable, Collection, Sequence

from mainspring.llm.values import Target

__all__ = ["RetryBudget", "Upstream", "choose"]

_FAULTS = 5
"""Faults in a row that open the breaker."""
_OPEN_S = 5.0
"""How long it stays open the first time; doubled each time that the trial fails, to the longest."""
_LONGEST_S = 60.0
_WINDOW = 50
"""Outcomes that are looked at for outliers."""
_SAMPLES = 20
_SHARE = 0.5
"""An upstream of which so large a share of the last outcomes are faults is ejected."""
_EJECTED_S = 30.0
_ALIKE = 0.1
"""Loads that differ by less than this share of themselves count as equal, and the prompt's beginning decides."""


class Upstream:
    """A target with what is known of its health and load.

    Args:
        target: who answers.
        now: a clock in seconds that only goes forward.

    Attributes:
        outstanding: tokens of the requests that are under way at it, as reserved.
        requests: how many they are.
        weight: its share of the load beside its neighbours.
        priced: whose price applies, and the engine's own name of the model.
        seed: what tells it apart from its neighbours, the same in every process.
    """

    __slots__ = (
        "_ejected_until",
        "_faults",
        "_now",
        "_open_s",
        "_open_until",
        "_outcomes",
        "_trial",
        "_wait_until",
        "outstanding",
        "priced",
        "requests",
        "seed",
        "target",
        "weight",
    )

    def __init__(self, target: Target, now: Callable[[], float]) -> None:
        self.target = target
        self.weight = target.weight
        self.priced = (target.provider, target.model)
        self.seed = int.from_bytes(hashlib.blake2b(target.name.encode(), digest_size=8).digest(), "big")
        self.outstanding = 0
        self.requests = 0
        self._now = now
        self._faults = 0
        self._open_s = _OPEN_S
        self._open_until = 0.0
        self._trial = False
        self._wait_until = 0.0
        self._ejected_until = 0.0
        self._outcomes: deque[bool] = deque(maxlen=_WINDOW)

    @property
    def well(self) -> bool:
        """Whether nothing at all speaks against it."""
        return not (self._faults or self._wait_until or self._ejected_until)

    def closed_for(self) -> float:
        """Seconds until a request may be sent; 0 is now. An open breaker lets one trial through after its time."""
        if self._faults < _FAULTS and not self._wait_until:
            return 0.0
        now = self._now()
        if self._faults >= _FAULTS and (self._trial or now < self._open_until):
            return max(self._open_until - now, 0.05)
        return max(self._wait_until - now, 0.0)

    def cooling(self) -> bool:
        """Whether it has asked for a pause that is not over."""
        return self._now() < self._wait_until

    def ejected(self) -> bool:
        """Whether it fails far more often than it should; it is used only when nothing else is there."""
        return bool(self._ejected_until) and self._now() < self._ejected_until

    def begin(self, tokens: int) -> None:
        """A request is sent."""
        self.outstanding += tokens
        self.requests += 1
        if self._faults >= _FAULTS:
            self._trial = True

    def end(self, tokens: int, ok: bool | None, wait_s: float | None = None) -> None:
        """A request is over.

        Args:
            tokens: as at `begin`.
            ok: whether it was well; None where it tells nothing: given up by us, or the client's own fault.
            wait_s: seconds in which it wants no further request.
        """
        self.outstanding -= tokens
        self.requests -= 1
        if wait_s:
            self._wait_until = max(self._wait_until, self._now() + wait_s)
        self._trial = False
        if ok is None:
            return
        self._outcomes.append(ok)
        if ok:
            self._faults, self._open_s = 0, _OPEN_S
            return
        self._faults += 1
        if self._faults >= _FAULTS:
            self._open_until = self._now() + self._open_s
            self._open_s = min(self._open_s * 2, _LONGEST_S)
        if len(self._outcomes) >= _SAMPLES and self._outcomes.count(False) >= _SHARE * len(self._outcomes):
            self._ejected_until = self._now() + _EJECTED_S
            self._outcomes.clear()


def choose(
    upstreams: Sequence[Upstream], prefix: bytes | Callable[[], bytes] = b"", tried: Collection[Upstream] = ()
) -> Upstream | None:
    """The upstream for a request, or None when none may be asked now.

    Of those that may be asked, the ones not tried yet, then the ones not ejected come first; never are more than half
    of all kept out as ejected. Among equal loads a hash of the prompt's beginning decides (rendezvous hashing), so that
    equal prompts meet the same cache.

    Args:
        upstreams: all that could answer.
        prefix: the prompt's beginning, or what makes it, where it is needed.
        tried: those that have been asked.
    """
    if len(upstreams) == 1:
        only = upstreams[0]
        return only if only.closed_for() == 0.0 else None
    if not tried and _all_well(upstreams):
        return _least(upstreams, prefix)
    able = [upstream for upstream in upstreams if upstream.closed_for() == 0.0]
    if tried:
        able = [upstream for upstream in able if upstream not in tried] or able
    well = [upstream for upstream in able if not upstream.ejected()]
    if len(well) * 2 >= len(upstreams) or (well and len(able) == len(well)):
        able = well
    return _least(able, prefix) if able else None


def _least(able: Sequence[Upstream], prefix: bytes | Callable[[], bytes]) -> Upstream:
    least = math.inf
    for upstream in able:
        if (load := upstream.outstanding / upstream.weight) < least:
            least = load
    most = least * (1 + _ALIKE)
    alike = [upstream for upstream in able if upstream.outstanding / upstream.weight <= most]
    if len(alike) == 1:
        return alike[0]
    point = zlib.crc32(prefix if isinstance(prefix, bytes) else prefix())
    best, highest = alike[0], -math.inf
    for upstream in alike:
        score = hash((point, upstream.seed))  # of numbers: the same in every process
        if score > highest:
            best, highest = upstream, score
    return best


def _all_well(upstreams: Sequence[Upstream]) -> bool:
    for upstream in upstreams:  # noqa: SIM110 - a loop costs half of what `all` over a generator does
        if upstream._faults or upstream._wait_until or upstream._ejected_until:  # `well`, without a call
            return False
    return True


class RetryBudget:
    """Retries as a share of requests: when everything fails, little is added to the load.

    Args:
        share: retries for a request.
        least: retries that are there from the start.
    """

    __slots__ = ("_balance", "_least", "_most", "_share")

    def __init__(self, share: float, least: int) -> None:
        self._share = share
        self._least = float(least)
        self._most = max(100.0 * share, self._least)
        self._balance = self._least

    def earn(self) -> None:
        """A request has come."""
        balance = self._balance + self._share
        self._balance = balance if balance < self._most else self._most

    def spend(self) -> bool:
        """Take one retry, if there is one."""
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True
