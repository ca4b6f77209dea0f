"""How often each caller may ask: a bucket of tokens each, in a bounded table."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping

import msgspec

from mainspring.config.settings import Settings
from mainspring.errors import ConfigError
from mainspring.server.http.listening import origin_of_setting

__all__ = ["Rate", "Rates", "rates_of"]

_MOST = 65_536
"""Callers whose buckets are kept."""
_SECOND = 1_000_000_000


class Rate(msgspec.Struct, frozen=True):
    """How often somebody may ask.

    Attributes:
        interval: nanoseconds in which one more request may come.
        burst: requests that may come at once after a rest.
    """

    interval: int
    burst: int

    @classmethod
    def of(cls, rate: float, burst: int | None) -> Rate:
        """So many requests a second; so many at once, or a second's when that is not said."""
        return cls(max(1, round(_SECOND / rate)), max(1, math.ceil(rate)) if burst is None else burst)


class Rates:
    """The buckets of all callers, each kept as the moment at which it will be full: exact, in whole nanoseconds.

    A bucket that is full again is as good as none, so it may be forgotten. While all of the table is in use, newcomers
    share one more bucket: nobody gets more by coming under many names.

    Args:
        usual: everybody's rate; None is no limit.
        own: the rates of callers that have one of their own, by name.
        most: callers whose buckets are kept.
        clock: nanoseconds that only grow.
    """

    def __init__(
        self,
        usual: Rate | None,
        own: Mapping[str, Rate],
        *,
        most: int = _MOST,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._usual = usual
        self._own = own
        self._most = most
        self._clock = clock
        self._full: OrderedDict[Hashable, int] = OrderedDict()
        self._shared = 0

    def __len__(self) -> int:
        return len(self._full)

    def rate(self, name: str) -> Rate | None:
        """The rate of a caller by its name; None is no limit."""
        return self._own.get(name, self._usual)

    def take(self, caller: Hashable, name: str = "") -> int:
        """Take one request of a caller's; the nanoseconds until the next may come when there is none, else 0.

        Args:
            caller: by what it is told from others.
            name: under which it may have a rate of its own.
        """
        rate = self.rate(name)
        if rate is None:
            return 0
        now = self._clock()
        shared = caller not in self._full and not self._has_room(now)
        full = self._shared if shared else self._full.get(caller, now)
        full = max(full, now)
        wait = full - now - (rate.burst - 1) * rate.interval
        if wait > 0:
            return wait
        if shared:
            self._shared = full + rate.interval
        else:
            self._full[caller] = full + rate.interval
            self._full.move_to_end(caller)
        return 0

    def _has_room(self, now: int) -> bool:
        if len(self._full) < self._most:
            return True
        oldest = next(iter(self._full))
        if self._full[oldest] > now:
            return False
        del self._full[oldest]
        return True


def rates_of(settings: Settings, make: Callable[[Rate | None, Mapping[str, Rate]], Rates] = Rates) -> Rates | None:
    """The limits of ``server.rate`` and ``[callers.NAME]``; None where there are none.

    Args:
        settings: of the active profile.
        make: keeps the buckets.

    Raises:
        ConfigError: MS-3119, a burst is set where no rate is.
    """
    usual = _rate(settings, "server")
    names = dict.fromkeys(key.split(".")[1] for key in settings.values if key.startswith("callers."))
    own = {name: rate for name in names if (rate := _rate(settings, f"callers.{name}")) is not None}
    return None if usual is None and not own else make(usual, own)


def _rate(settings: Settings, section: str) -> Rate | None:
    rate, burst = settings.setting(f"{section}.rate"), settings.setting(f"{section}.burst")
    if rate is not None and rate.value is not None:
        return Rate.of(
            settings.number(f"{section}.rate"),
            None if burst is None or burst.value is None else settings.whole(f"{section}.burst"),
        )
    if burst is not None and burst.value is not None:
        raise ConfigError(
            f"{section}.burst is set, and {section}.rate is not",
            code="MS-3119",
            why="a burst is how much of a rate may come at once",
            origin=origin_of_setting(settings, f"{section}.burst"),
            fix=f"{section}.rate = 100",
        )
    return None
