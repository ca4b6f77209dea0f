"""Budgets and rates: reserved before a request is sent, settled when it ends; exact within one process."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from mainspring.llm.values import Limits

__all__ = ["Account", "Accounts", "Denied", "Left", "Reservation"]

What = Literal["requests", "tokens", "concurrency", "money"]


class Denied(msgspec.Struct, frozen=True):
    """A limit that a request would exceed.

    Attributes:
        what: which kind of limit.
        account: whose: ``key:web``, ``tenant:acme``, ``model:chat``.
        limit: how much there is in all.
        left: how much of it is left.
        asked: how much the request may take.
        wait_s: seconds until it may be there again; None where waiting does not help.
    """

    what: What
    account: str
    limit: int
    left: int
    asked: int
    wait_s: float | None


class Left(msgspec.Struct, frozen=True):
    """What the tightest account has left, for ``x-ratelimit-*``; None without such a limit.

    Attributes:
        requests: (limit, remaining, seconds until the window's end).
        tokens: the same of tokens.
    """

    requests: tuple[int, int, float] | None = None
    tokens: tuple[int, int, float] | None = None


@dataclass(slots=True)
class _Window:
    """A span of time and what was taken in it: reserved and not yet settled, or settled."""

    start: float
    requests: int = 0
    tokens: int = 0


@dataclass(slots=True)
class _Period:
    start: float
    money: int = 0


class Account:
    """What one key, tenant or model has used.

    Args:
        name: ``key:web``.
        limits: what it may use.
        now: the clock, in seconds since 1970.
        spent: micro-units that its period has seen before this process began.
    """

    __slots__ = ("_now", "_period", "_window", "limits", "name", "under_way")

    def __init__(self, name: str, limits: Limits, now: Callable[[], float], spent: int = 0) -> None:
        self.name = name
        self.limits = limits
        self.under_way = 0
        self._now = now
        self._window = _Window(_begin(now(), limits.window_s))
        self._period = _Period(_begin(now(), limits.period_s), spent)

    def turn(self) -> None:
        """Begin the next window and period when their time has come."""
        now, limits = self._now(), self.limits
        if not 0 <= now - self._window.start < limits.window_s:
            self._window = _Window(_begin(now, limits.window_s))
        if not 0 <= now - self._period.start < limits.period_s:
            self._period = _Period(_begin(now, limits.period_s))

    def denies(self, tokens: int, money: int) -> Denied | None:
        """The first limit that one more request with so much would exceed."""
        limits, window = self.limits, self._window
        if limits.concurrent is not None and self.under_way >= limits.concurrent:
            return Denied("concurrency", self.name, limits.concurrent, 0, 1, 1.0)
        if limits.requests is not None and window.requests >= limits.requests:
            return Denied("requests", self.name, limits.requests, 0, 1, self._until_window())
        if limits.tokens is not None and window.tokens + tokens > limits.tokens:
            wait = self._until_window() if tokens <= limits.tokens else None
            return Denied("tokens", self.name, limits.tokens, limits.tokens - window.tokens, tokens, wait)
        if limits.money_micro is not None and self._period.money + money > limits.money_micro:
            left = limits.money_micro - self._period.money
            wait = self._until_period() if money <= limits.money_micro else None
            return Denied("money", self.name, limits.money_micro, left, money, wait)
        return None

    def take(self, tokens: int, money: int) -> tuple[_Window, _Period]:
        """Reserve; what `give` is called with later."""
        self.under_way += 1
        self._window.requests += 1
        self._window.tokens += tokens
        self._period.money += money
        return self._window, self._period

    def settle(self, taken: tuple[_Window, _Period], tokens: int, money: int) -> None:
        """Correct what was reserved by what was used (negative: less), in the window in which it was reserved."""
        self.under_way -= 1
        window, period = taken
        window.tokens += tokens
        period.money += money

    def left(self) -> Left:
        """What is left now."""
        limits, window = self.limits, self._window
        until = self._until_window()
        requests = None if limits.requests is None else (limits.requests, limits.requests - window.requests, until)
        tokens = None if limits.tokens is None else (limits.tokens, max(limits.tokens - window.tokens, 0), until)
        return Left(requests, tokens)

    @property
    def used_tokens(self) -> int:
        """Tokens taken in the window that runs."""
        self.turn()
        return self._window.tokens

    @property
    def used_micro(self) -> int:
        """Money taken in the period that runs, in micro-units."""
        self.turn()
        return self._period.money

    def _until_window(self) -> float:
        return max(self._window.start + self.limits.window_s - self._now(), 0.0)

    def _until_period(self) -> float:
        return max(self._period.start + self.limits.period_s - self._now(), 0.0)


def _begin(now: float, length: float) -> float:
    return math.floor(now / length) * length


class Reservation:
    """What a request holds at every account that it counts at, until it is settled; once."""

    __slots__ = ("_accounts", "_taken", "left", "money", "open", "tokens")

    def __init__(self, accounts: Sequence[Account], tokens: int, money: int) -> None:
        self._accounts = accounts
        self._taken = [account.take(tokens, money) for account in accounts]
        self.tokens = tokens
        self.money = money
        self.open = True
        self.left = _tightest([account.left() for account in accounts])

    def settle(self, tokens: int, money: int) -> None:
        """Replace what was reserved by what was used; later calls do nothing."""
        if self.open:
            self.open = False
            for account, taken in zip(self._accounts, self._taken, strict=True):
                account.settle(taken, tokens - self.tokens, money - self.money)


def _tightest(found: Sequence[Left]) -> Left:
    requests = [left.requests for left in found if left.requests is not None]
    tokens = [left.tokens for left in found if left.tokens is not None]
    return Left(
        min(requests, key=lambda left: left[1]) if requests else None,
        min(tokens, key=lambda left: left[1]) if tokens else None,
    )


class Accounts:
    """Every account of a gateway.

    Args:
        now: the clock, in seconds since 1970.
        spent: micro-units that each account's period has seen before, by the account's name.
    """

    __slots__ = ("_all", "_now", "_spent")

    def __init__(self, now: Callable[[], float], spent: Mapping[str, int] | None = None) -> None:
        self._now = now
        self._spent = dict(spent or {})
        self._all: dict[str, Account] = {}

    def add(self, name: str, limits: Limits) -> Account | None:
        """The account of a name, or None where its limits are none at all."""
        if limits == Limits():
            return None
        found = self._all.get(name)
        if found is None:
            found = self._all[name] = Account(name, limits, self._now, self._spent.get(name, 0))
        return found

    def get(self, name: str) -> Account | None:
        """The account of a name, where it has limits."""
        return self._all.get(name)

    @staticmethod
    def reserve(accounts: Sequence[Account], tokens: int, money: int) -> Reservation | Denied:
        """Take it at all of them, or at none.

        Args:
            accounts: where the request counts.
            tokens: the most that it can take.
            money: the most that it can cost, in micro-units.
        """
        for account in accounts:
            account.turn()
            denied = account.denies(tokens, money)
            if denied is not None:
                return denied
        return Reservation(accounts, tokens, money)
