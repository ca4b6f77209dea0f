"""Budgets and rates: reserved before a request is sent, settled when it ends; never exceeded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from mainspring.llm.values import Limits

__all__ = ["Account", "Accounts", "Denied", "Left", "Reservation", "What"]

What = Literal["requests", "tokens", "concurrency", "money", "store"]


class Denied(msgspec.Struct, frozen=True):
    """A limit that a request would exceed.

    Attributes:
        what: which kind of limit; ``store`` where nobody can be asked how much is left.
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


class Account:
    """What one key, tenant or model has used.

    Args:
        name: ``key:web``.
        limits: what it may use.
        now: the clock, in seconds since 1970.
        spent: micro-units that its period has seen before this process began.

    Attributes:
        under_way: requests at this moment.
        window: when the window that runs began.
        period: when the period that runs began.
        requests: taken in the window.
        tokens: taken in the window: reserved and not yet settled, or settled.
        money: taken in the period, in micro-units.
        until: when the first of the window and the period ends.
        most_under_way: the limit of each, infinite where there is none.
        most_requests: as `most_under_way`.
        most_tokens: as `most_under_way`.
        most_money: as `most_under_way`.
    """

    __slots__ = (
        "limits",
        "money",
        "most_money",
        "most_requests",
        "most_tokens",
        "most_under_way",
        "name",
        "now",
        "period",
        "requests",
        "tokens",
        "under_way",
        "until",
        "window",
    )

    def __init__(self, name: str, limits: Limits, now: Callable[[], float], spent: int = 0) -> None:
        self.name = name
        self.limits = limits
        self.now = now
        self.most_under_way = _most(limits.concurrent)
        self.most_requests = _most(limits.requests)
        self.most_tokens = _most(limits.tokens)
        self.most_money = _most(limits.money_micro)
        self.under_way = self.requests = self.tokens = 0
        self.window = _begin(now(), limits.window_s)
        self.period = _begin(now(), limits.period_s)
        self.money = spent
        self.until = min(self.window + limits.window_s, self.period + limits.period_s)

    def turn(self, now: float) -> None:
        """Begin the next window and period when their time has come; `now` is in seconds since 1970."""
        limits = self.limits
        window, period = _begin(now, limits.window_s), _begin(now, limits.period_s)
        if window != self.window:
            self.window, self.requests, self.tokens = window, 0, 0
        if period != self.period:
            self.period, self.money = period, 0
        self.until = min(window + limits.window_s, period + limits.period_s)

    def denies(self, now: float, tokens: int, money: int) -> Denied:
        """The first limit that one more request with so much would exceed; there is one."""
        limits = self.limits
        until_window = max(self.window + limits.window_s - now, 0.0)
        if limits.concurrent is not None and self.under_way >= limits.concurrent:
            return Denied("concurrency", self.name, limits.concurrent, 0, 1, 1.0)
        if limits.requests is not None and self.requests >= limits.requests:
            return Denied("requests", self.name, limits.requests, 0, 1, until_window if limits.requests else None)
        if limits.tokens is not None and self.tokens + tokens > limits.tokens:
            wait = until_window if tokens <= limits.tokens else None
            return Denied("tokens", self.name, limits.tokens, limits.tokens - self.tokens, tokens, wait)
        most = limits.money_micro or 0
        until_period = max(self.period + limits.period_s - now, 0.0)
        return Denied("money", self.name, most, most - self.money, money, until_period if money <= most else None)

    def reset(self, now: float) -> float:
        """Seconds until its window ends; `now` is in seconds since 1970."""
        return max(self.window + self.limits.window_s - now, 0.0)

    @property
    def used_tokens(self) -> int:
        """Tokens taken in the window that runs."""
        self.turn(self.now())
        return self.tokens

    @property
    def used_micro(self) -> int:
        """Money taken in the period that runs, in micro-units."""
        self.turn(self.now())
        return self.money


def _most(limit: int | None) -> float:
    return math.inf if limit is None else limit


def _begin(now: float, length: float) -> float:
    return now // length * length


class Reservation:
    """What a request holds at every account that it counts at, until it is settled; once.

    Args:
        accounts: where it counts; their windows and periods are those of `at`.
        tokens: what it may take.
        money: what it may cost, in micro-units.
        at: the moment, in seconds since 1970.
    """

    __slots__ = ("_accounts", "_at", "money", "open", "tokens")

    def __init__(self, accounts: Sequence[Account], tokens: int, money: int, at: float) -> None:
        self._accounts = accounts
        self._at = at
        self.tokens = tokens
        self.money = money
        self.open = True
        for account in accounts:
            account.under_way += 1
            account.requests += 1
            account.tokens += tokens
            account.money += money

    def left(self) -> Left:
        """What the tightest of its accounts have left now."""
        fewest = least = self._accounts[0]
        now, requests, tokens = fewest.now(), math.inf, math.inf
        for account in self._accounts:
            left = account.most_requests - account.requests
            if left < requests:
                fewest, requests = account, left
            left = account.most_tokens - account.tokens
            if left < tokens:
                least, tokens = account, left
        return Left(
            None if requests == math.inf else (int(fewest.most_requests), int(requests), fewest.reset(now)),
            None if tokens == math.inf else (int(least.most_tokens), max(int(tokens), 0), least.reset(now)),
        )

    def settle(self, tokens: int, money: int) -> None:
        """Replace what was reserved by what was used, in the window in which it was; later calls do nothing."""
        if not self.open:
            return
        self.open = False
        at, more, dearer = self._at, tokens - self.tokens, money - self.money
        for account in self._accounts:
            account.under_way -= 1
            if at < account.until:
                if account.window <= at:
                    account.tokens += more
                if account.period <= at:
                    account.money += dearer


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

    def reserve(self, accounts: Sequence[Account], tokens: int, money: int) -> Reservation | Denied:
        """Take it at all of them, or at none.

        Args:
            accounts: where the request counts.
            tokens: the most that it can take.
            money: the most that it can cost, in micro-units.
        """
        now = self._now()
        for account in accounts:
            if not account.window <= now < account.until:
                account.turn(now)
            if not (
                account.under_way < account.most_under_way
                and account.requests < account.most_requests
                and account.tokens + tokens <= account.most_tokens
                and account.money + money <= account.most_money
            ):
                return account.denies(now, tokens, money)
        return self._reservation(accounts, tokens, money, now)

    async def take(self, accounts: Sequence[Account], tokens: int, money: int) -> Reservation | Denied:
        """As `reserve`, asking others where use is counted together with them."""
        return self.reserve(accounts, tokens, money)

    def _reservation(self, accounts: Sequence[Account], tokens: int, money: int, now: float) -> Reservation:
        return Reservation(accounts, tokens, money, now)
