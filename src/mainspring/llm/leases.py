"""Budgets that several servers have in common: each draws a part from one store, and gives it out by itself.

What is drawn was taken from the store before anybody may use it, so the servers together never exceed a limit. What a
server holds and does not use is missing elsewhere for at most some seconds: a hundredth of the limit, or what its
largest requests reserve. A server that is killed takes that with it until the window or the period ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

from mainspring.errors import MainspringError
from mainspring.llm.limits import Account, Accounts, Denied, Left, Reservation, What
from mainspring.llm.values import Limits
from mainspring.ports.budgets import BudgetStore, Drawn, Hold, Rest, Want

__all__ = ["LeasedAccount", "LeasedAccounts"]

T = TypeVar("T")
_SHARE = 100
"""A lease is this part of a limit, unless a request needs more."""
_EVERY_S = 1.0
"""How often what is not needed is given back, and places are held anew."""
_IDLE_S = 5.0
"""After how long without a request nothing at all is kept."""
_PLACES_S = 15.0
"""How long places are held for a server that is not heard of."""
_DRY_S = 0.1
"""For how long nobody is asked again for what there was not enough of."""
_DOWN_S = 1.0
"""For how long a store that did not answer is not asked again."""

_COUNTED: tuple[What, ...] = ("requests", "tokens", "money")
_LIMITED: tuple[What, ...] = ("concurrency", *_COUNTED)


class LeasedAccount(Account):
    """An account that may give out what was drawn for it; ``most_*`` is that much, infinite where there is no limit.

    Args:
        name: ``key:web``.
        limits: what all servers together may use.
        now: the clock, in seconds since 1970.
        kept_as: what the store calls it, where several apps may be.
        before: micro-units that its period has seen, for a store that knows nothing of it.

    Attributes:
        kept_as: as above.
        before: as above; of the period in which the server began.
        began: that period.
        left: by what it is, how much of it nobody had drawn when the store was asked last.
        dry: by what it is, until when (monotonic) it is not asked for again.
        asked: when (monotonic) a request came last.
        places: places that are held in the store, of which some may wait to be given up.
    """

    __slots__ = ("asked", "before", "began", "dry", "kept_as", "left", "places")

    def __init__(self, name: str, limits: Limits, now: Callable[[], float], kept_as: str, before: int = 0) -> None:
        super().__init__(name, limits, now)
        self.kept_as = kept_as
        self.before, self.began = before, self.period
        self.left: dict[What, int] = {}
        self.dry: dict[What, float] = {}
        self.asked = 0.0
        self.places = 0
        self.most_under_way = _none(limits.concurrent)
        self.most_requests = _none(limits.requests)
        self.most_tokens = _none(limits.tokens)
        self.most_money = _none(limits.money_micro)

    def turn(self, now: float) -> None:
        """As `Account.turn`; what was drawn of a window that is over is nothing any more."""
        window, period = self.window, self.period
        super().turn(now)
        if window != self.window:
            self.most_requests = _none(self.limits.requests)
            self.most_tokens = _none(self.limits.tokens)
            self._fresh("requests", "tokens")
        if period != self.period:
            self.most_money = _none(self.limits.money_micro)
            self._fresh("money")

    def _fresh(self, *whats: What) -> None:
        for what in whats:
            self.left.pop(what, None)
            self.dry.pop(what, None)

    def limit(self, what: What) -> int | None:
        """How much all servers may use of it."""
        limits = self.limits
        return {
            "requests": limits.requests,
            "tokens": limits.tokens,
            "money": limits.money_micro,
            "concurrency": limits.concurrent,
        }[what]

    def spare(self, what: What) -> int:
        """How much of what was drawn is not used; below 0, what was used beyond it. It has a limit."""
        most, used = {
            "requests": (self.most_requests, self.requests),
            "tokens": (self.most_tokens, self.tokens),
            "money": (self.most_money, self.money),
            "concurrency": (self.most_under_way, self.under_way),
        }[what]
        return int(most) - used

    def add(self, what: What, amount: int) -> None:
        """Have more to give out, or less."""
        if what == "requests":
            self.most_requests += amount
        elif what == "tokens":
            self.most_tokens += amount
        elif what == "money":
            self.most_money += amount
        else:
            self.most_under_way += amount

    def counter(self, what: What) -> tuple[str, float, float]:
        """The counter of what runs now, when it began, and how long it lasts in seconds."""
        began, lasts = (self.period, self.limits.period_s) if what == "money" else (self.window, self.limits.window_s)
        return f"{self.kept_as}:{what}:{lasts:g}:{began:.3f}", began, lasts

    def denies(self, now: float, tokens: int, money: int) -> Denied:
        """As `Account.denies`, of all servers' limits; what others hold is not left for this one."""
        for what, amount in zip(_LIMITED, (1, 1, tokens, money), strict=True):
            limit = self.limit(what)
            if limit is not None and amount > limit:
                return Denied(what, self.name, limit, self.rest(what), amount, None)
        for what, amount in zip(_LIMITED, (1, 1, tokens, money), strict=True):
            limit = self.limit(what)
            if limit is not None and amount > self.spare(what):
                return Denied(what, self.name, limit, self.rest(what), amount, self._wait(what, now))
        raise AssertionError("nothing denies it")

    def _wait(self, what: What, now: float) -> float:
        if what == "concurrency":
            return 1.0
        return max(self.period + self.limits.period_s - now, 0.0) if what == "money" else self.reset(now)

    def rest(self, what: What) -> int:
        """How much is left of it for this server, as far as it knows."""
        limit = cast(int, self.limit(what))
        return max(min(self.left.get(what, limit) + self.spare(what), limit), 0)

    @property
    def used_tokens(self) -> int:
        """Tokens taken in the window that runs, by all servers, as far as this one knows."""
        self.turn(self.now())
        return self.tokens if self.limits.tokens is None else self.limits.tokens - self.rest("tokens")

    @property
    def used_micro(self) -> int:
        """Money taken in the period that runs, by all servers, as far as this one knows."""
        self.turn(self.now())
        most = self.limits.money_micro
        return self.money if most is None else most - self.rest("money")


def _none(limit: int | None) -> float:
    return math.inf if limit is None else 0


class LeasedReservation(Reservation):
    """A reservation whose ``left`` is told of all servers."""

    __slots__ = ()

    def left(self) -> Left:
        """As `Reservation.left`; what other servers have drawn since this one asked is still counted as there."""
        found: dict[What, tuple[int, int, float]] = {}
        for account in cast("Sequence[LeasedAccount]", self._accounts):
            now = account.now()
            for what in _COUNTED[:2]:
                limit = account.limit(what)
                if limit is not None and (what not in found or account.rest(what) < found[what][1]):
                    found[what] = (limit, account.rest(what), account.reset(now))
        return Left(found.get("requests"), found.get("tokens"))


class LeasedAccounts(Accounts):
    """The accounts of `Accounts`, over all servers that use the same store.

    Args:
        now: the clock, in seconds since 1970; servers' clocks differ by much less than a window.
        store: where they count together.
        app: whose accounts they are; apps that share a store have accounts of their own.
        member: this process among all.
        told: told once when the store does not answer, and when it does again.
        spent: micro-units that each account's period has seen before, for a store that knows nothing of it.
        monotonic: seconds that only grow.
    """

    __slots__ = ("_app", "_down", "_down_until", "_locks", "_member", "_monotonic", "_store", "_threads", "_told")

    def __init__(
        self,
        now: Callable[[], float],
        store: BudgetStore,
        app: str,
        member: str,
        told: Callable[[str], None],
        spent: Mapping[str, int] | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(now, spent)
        self._monotonic = monotonic
        self._store, self._app, self._member, self._told = store, app, member, told
        self._down, self._down_until = "", 0.0
        self._locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()
        self._threads = ThreadPoolExecutor(2, "budgets")

    def add(self, name: str, limits: Limits) -> Account | None:
        """As `Accounts.add`."""
        if limits == Limits():
            return None
        found = self._all.get(name)
        if found is None:
            spent = self._spent.get(name, 0)
            found = self._all[name] = LeasedAccount(name, limits, self._now, f"{self._app}/{name}", spent)
        return found

    async def take(self, accounts: Sequence[Account], tokens: int, money: int) -> Reservation | Denied:
        """As `Accounts.take`: of what this server has drawn, or after drawing more."""
        moment = self._monotonic()
        for account in accounts:
            cast(LeasedAccount, account).asked = moment
        got = self.reserve(accounts, tokens, money)
        if isinstance(got, Reservation):
            return got
        async with self._lock():
            while True:
                got = self.reserve(accounts, tokens, money)  # another request may have drawn enough for this one, too
                if isinstance(got, Reservation) or got.wait_s is None:
                    return got
                if self._monotonic() < self._down_until:
                    return Denied("store", got.account, got.limit, got.left, got.asked, _DOWN_S)
                drawing = asyncio.ensure_future(self._draw(cast("Sequence[LeasedAccount]", accounts), tokens, money))
                # Whoever asked may leave meanwhile; what was drawn for them is there for others.
                if not await asyncio.shield(drawing):
                    return self.reserve(accounts, tokens, money)

    def _reservation(self, accounts: Sequence[Account], tokens: int, money: int, now: float) -> Reservation:
        return LeasedReservation(accounts, tokens, money, now)

    def _lock(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        return self._locks.setdefault(loop, asyncio.Lock())

    # -- drawing -------------------------------------------------------------------------------------------------------

    async def _draw(self, accounts: Sequence[LeasedAccount], tokens: int, money: int) -> bool:
        """Draw what one more request needs; whether trying again may help: it got something, or could not ask."""
        wants: list[tuple[LeasedAccount, What, float, Want]] = []
        holds: list[tuple[LeasedAccount, Hold]] = []
        moment = self._monotonic()
        for account in accounts:
            for what, amount in zip(_COUNTED, (1, tokens, money), strict=True):
                limit = account.limit(what)
                need = 0 if limit is None else amount - account.spare(what)
                if limit is None or need <= 0:
                    continue
                if account.dry.get(what, 0.0) > moment and need > account.left.get(what, 0):
                    return False
                wants.append((account, what, *_want(account, what, limit, need)))
            most = account.limits.concurrent
            if most is not None and account.spare("concurrency") < 1:
                if account.dry.get("concurrency", 0.0) > moment:
                    return False
                holds.append((account, Hold(account.kept_as, most, account.under_way + max(most // _SHARE, 1))))
        if not wants and not holds:
            return False
        asked = self._drawing([want for *_, want in wants], [hold for _, hold in holds])
        drawn = await self._ask(asked)
        if drawn is None:
            return True
        moment = self._monotonic()
        got = [_drawn(*of[:3], part, moment) for of, part in zip(wants, drawn[0], strict=True)]
        got += [_held(*of, part, moment) for of, part in zip(holds, drawn[1], strict=True)]
        return all(got)

    def _drawing(
        self, wants: Sequence[Want], holds: Sequence[Hold]
    ) -> Callable[[], tuple[Sequence[Drawn], Sequence[Drawn]]]:
        def draw() -> tuple[Sequence[Drawn], Sequence[Drawn]]:
            drawn = self._store.draw(wants) if wants else []
            return drawn, self._store.hold(self._member, holds, _PLACES_S) if holds else []

        return draw

    async def _ask(self, asked: Callable[[], T]) -> T | None:
        """What the store says, in a thread; None where it does not answer."""
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, asked)
        except MainspringError as error:
            self._down_until = self._monotonic() + _DOWN_S
            if self._down != error.what:
                self._down = error.what
                self._told(f"budgets cannot be counted with the other servers: {error.what}: {error.why}")
            return None
        if self._down:
            self._down = ""
            self._told("budgets are counted with the other servers again")
        return found

    # -- giving back ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Give back what is not needed and hold places anew, until it is cancelled; then give back everything."""
        try:
            while True:
                await asyncio.sleep(_EVERY_S)
                await self.refresh()
        finally:
            with contextlib.suppress(MainspringError):
                self.leave()

    async def refresh(self) -> None:
        """Give back what is not needed of what was drawn, tell what was used beyond it, and hold places anew."""
        async with self._lock():
            rests, holds = self._surplus(self._monotonic())
            if (rests or holds) and self._monotonic() >= self._down_until:
                held = await self._ask(lambda: self._kept(rests, holds))
                if held is not None:
                    for of, part in zip(holds, held, strict=True):
                        _held(*of, part, self._monotonic())
                    return
            for account, what, began, rest in rests:  # they are told another time
                if account.counter(what)[1] == began:
                    account.add(what, rest.amount)

    def leave(self) -> None:
        """Give back everything, before the process ends; requests under way keep what they reserved.

        Raises:
            ServiceError: the store does not answer.
        """
        rests, holds = self._surplus(math.inf)
        self._threads.shutdown(wait=True)
        self._kept(rests, holds)

    def _kept(
        self,
        rests: Sequence[tuple[LeasedAccount, What, float, Rest]],
        holds: Sequence[tuple[LeasedAccount, Hold]],
    ) -> Sequence[Drawn]:
        if rests:
            self._store.give_back([rest for *_, rest in rests])
        return self._store.hold(self._member, [hold for _, hold in holds], _PLACES_S) if holds else []

    def _surplus(
        self, moment: float
    ) -> tuple[list[tuple[LeasedAccount, What, float, Rest]], list[tuple[LeasedAccount, Hold]]]:
        """What goes back, which is not given out any more from here on, and the places that are needed."""
        rests: list[tuple[LeasedAccount, What, float, Rest]] = []
        holds: list[tuple[LeasedAccount, Hold]] = []
        now = self._now()
        for account in cast("Sequence[LeasedAccount]", list(self._all.values())):
            if not account.window <= now < account.until:
                account.turn(now)
            idle = moment - account.asked > _IDLE_S
            for what in _COUNTED:
                limit = account.limit(what)
                if limit is None:
                    continue
                kept = 0 if idle else _share(limit)
                spare = account.spare(what)
                if spare > kept or spare < 0:
                    amount = spare - kept if spare > kept else spare
                    account.add(what, -amount)
                    name, began, _ = account.counter(what)
                    rests.append((account, what, began, Rest(name, amount)))
            most = account.limits.concurrent
            if most is not None and account.places:
                places = account.under_way + (0 if idle else max(most // _SHARE, 1))
                places = min(places, account.places)
                account.most_under_way = min(account.most_under_way, places)
                holds.append((account, Hold(account.kept_as, most, places)))
        return rests, holds


def _share(limit: int) -> int:
    return -(-limit // _SHARE)


def _want(account: LeasedAccount, what: What, limit: int, need: int) -> tuple[float, Want]:
    name, began, lasts = account.counter(what)
    before = account.before if what == "money" and account.began == account.period else 0
    return began, Want(name, limit, need, max(need, _share(limit)), before, 2 * lasts)


def _drawn(account: LeasedAccount, what: What, began: float, part: Drawn, moment: float) -> bool:
    """Have what was drawn, unless its window is over; whether it was anything."""
    if account.counter(what)[1] != began:
        return True  # of a window that is over: the next one is asked for
    account.left[what] = part.left
    account.add(what, part.got)
    if not part.got:
        account.dry[what] = moment + _DRY_S
    return part.got > 0


def _held(account: LeasedAccount, hold: Hold, part: Drawn, moment: float) -> bool:
    """Have the places that are held; whether one of them is free."""
    account.places = part.got
    account.most_under_way = part.got
    account.left["concurrency"] = part.left
    if part.got < hold.places:
        account.dry["concurrency"] = moment + _DRY_S
    return part.got > account.under_way
