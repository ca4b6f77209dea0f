"""Budgets that several servers have in common: nothing beyond a limit, whatever they do, and nothing kept from them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.errors import ServiceError
from mainspring.llm.leases import LeasedAccounts
from mainspring.llm.limits import Account, Denied, Reservation
from mainspring.llm.refused import denied
from mainspring.llm.values import Limits
from mainspring.ports.budgets import Drawn, Hold, Rest, Want
from thoroughly import rounds

LIMITS = Limits(requests=50, tokens=1000, window_s=60, concurrent=5, money_micro=500, period_s=600)


class Memory:
    """A budget store that is a dictionary; its contract is the one of the others."""

    def __init__(self) -> None:
        self.used: dict[str, int] = {}
        self.places: dict[tuple[str, str], int] = {}
        self.asked = 0
        self.down = False
        self.lock = threading.Lock()

    def _ask(self) -> None:
        self.asked += 1
        if self.down:
            raise ServiceError("it does not answer", code="MS-4210", why="it is down", fix="start it")

    def draw(self, wants: Sequence[Want]) -> list[Drawn]:
        with self.lock:
            self._ask()
            found = []
            for want in wants:
                used = self.used.setdefault(want.counter, want.before)
                left = max(want.limit - used, 0)
                got = min(want.wish, left) if left >= want.least else 0
                self.used[want.counter] += got
                found.append(Drawn(got, left - got))
            return found

    def give_back(self, rests: Sequence[Rest]) -> None:
        with self.lock:
            self._ask()
            for rest in rests:
                self.used[rest.counter] = max(self.used[rest.counter] - rest.amount, 0)

    def hold(self, member: str, holds: Sequence[Hold], lasts_s: float) -> list[Drawn]:
        with self.lock:
            self._ask()
            found = []
            for hold in holds:
                others = sum(
                    n for (account, who), n in self.places.items() if account == hold.account and who != member
                )
                free = max(hold.most - others, 0)
                got = self.places[hold.account, member] = min(hold.places, free)
                found.append(Drawn(got, free - got))
            return found

    def close(self) -> None:
        pass


@dataclass
class Servers:
    """Some servers over one store, on clocks that tests move."""

    store: Memory = field(default_factory=Memory)
    now: float = 1_000_020.0
    """Which begins a window and not a period."""
    quiet: float = 0.0
    told: list[str] = field(default_factory=list)
    made: int = 0

    def open(self, limits: Limits = LIMITS, **more: Any) -> tuple[LeasedAccounts, Account]:
        self.made += 1
        name = f"member{self.made}"
        clocks = {"monotonic": lambda: 1000 + self.quiet}
        accounts = LeasedAccounts(lambda: self.now, self.store, "app", name, self.told.append, **clocks, **more)
        account = accounts.add("key:web", limits)
        assert account is not None
        return accounts, account


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


async def held(of: tuple[LeasedAccounts, Account], tokens: int, money: int = 0) -> Reservation:
    got = await of[0].take([of[1]], tokens, money)
    assert isinstance(got, Reservation), got
    return got


async def refused(of: tuple[LeasedAccounts, Account], tokens: int, money: int = 0) -> Denied:
    got = await of[0].take([of[1]], tokens, money)
    assert isinstance(got, Denied), got
    return got


def test_what_one_server_takes_the_others_have_no_more() -> None:
    async def work() -> None:
        servers = Servers()
        one, other = servers.open(), servers.open()
        first = await held(one, 700, 100)
        no = await refused(other, 301)
        assert (no.what, no.account, no.limit, no.left, no.asked) == ("tokens", "key:web", 1000, 300, 301)
        assert no.wait_s == 60.0
        await held(other, 300, 400)
        assert (await refused(one, 0, 1)).what == "money"
        first.settle(10, 1)
        await held(one, 600, 90)  # what it had reserved is there for its next request, without asking anybody
        assert (one[1].used_tokens, one[1].used_micro) == (610, 491), "as far as it knows"

    run(work)


def test_what_is_not_needed_goes_back_to_the_others() -> None:
    async def work() -> None:
        servers = Servers()
        one, other = servers.open(), servers.open()
        (await held(one, 1000, 500)).settle(100, 50)
        servers.quiet += 0.2
        assert (await refused(other, 1)).left == 0
        await one[0].refresh()
        servers.quiet += 0.2
        await held(other, 890, 445)  # all but a hundredth, which the other keeps for its next request
        servers.quiet += 6
        await one[0].refresh()
        await held(other, 10, 5)

    run(work)


def test_a_request_of_a_busy_server_asks_nobody() -> None:
    async def work() -> None:
        servers = Servers()
        one = servers.open(Limits(requests=100_000, tokens=10_000_000, window_s=60))
        for _ in range(1000):
            (await held(one, 100)).settle(60, 0)
        assert servers.store.asked <= 4
        got = await one[0].take([one[1]], 100, 0)
        assert isinstance(got, Reservation)
        left = got.left()
        assert left.requests == (100_000, 98_999, 60.0)
        assert left.tokens == (10_000_000, 10_000_000 - 60_100, 60.0)

    run(work)


def test_many_waiting_requests_are_drawn_for_one_after_the_other() -> None:
    async def work() -> None:
        servers = Servers()
        every = [servers.open() for _ in range(3)]
        got = await asyncio.gather(*(of[0].take([of[1]], 40, 0) for of in every for _ in range(70)))
        assert sum(isinstance(one, Reservation) for one in got) == 5, "places"
        for one in got:
            if isinstance(one, Reservation):
                one.settle(40, 0)
        limits = Limits(tokens=1000)
        servers = Servers()
        every = [servers.open(limits) for _ in range(3)]
        got = await asyncio.gather(*(of[0].take([of[1]], 40, 0) for of in every for _ in range(70)))
        assert sum(isinstance(one, Reservation) for one in got) == 25

    run(work)


def test_what_was_drawn_for_one_who_left_is_there_for_others() -> None:
    async def work() -> None:
        servers = Servers()
        one, other = servers.open(Limits(tokens=1000)), servers.open(Limits(tokens=1000))
        with servers.store.lock:  # the store is slow
            leaving = asyncio.create_task(one[0].take([one[1]], 600, 0))
            await asyncio.sleep(0.01)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        assert leaving.cancelled()
        await held(one, 600)
        assert (await refused(other, 401)).left == 400, "it was drawn once"

    run(work)


def test_a_window_that_is_over_takes_its_lease_with_it() -> None:
    async def work() -> None:
        servers = Servers()
        one, other = servers.open(), servers.open()
        late = await held(one, 600, 10)
        servers.now += 60
        await held(other, 1000, 10)
        late.settle(5, 5)
        assert (await refused(one, 1)).what == "tokens"
        await one[0].refresh()
        assert (await refused(one, 1)).what == "tokens", "nothing of the old window came into this one"
        assert one[1].used_micro == 5, "as far as it knows"

    run(work)


def test_what_was_used_beyond_a_reservation_is_told() -> None:
    async def work() -> None:
        servers = Servers()
        one, other = servers.open(), servers.open()
        (await held(one, 100)).settle(990, 0)
        await one[0].refresh()
        assert (await refused(other, 20)).left == 10
        await held(other, 10)

    run(work)


def test_money_that_was_spent_before_the_store_knew_of_it_counts() -> None:
    async def work() -> None:
        servers = Servers()
        one = servers.open(spent={"key:web": 480})
        assert (await refused(one, 1, 21)).left == 20
        await held(one, 1, 20)
        later = servers.open(spent={"key:web": 480})
        servers.now += 600
        await held(later, 1, 500)

    run(work)


def test_a_store_that_does_not_answer_refuses_what_was_not_drawn_and_is_told_once() -> None:
    async def work() -> None:
        servers = Servers()
        one = servers.open(Limits(tokens=1000))
        (await held(one, 500)).settle(0, 0)
        servers.store.down = True
        await held(one, 400)  # of what is held already
        no = await refused(one, 400)
        answer = denied(no)
        assert (no.what, answer.error.kind, answer.error.retryable, answer.error.retry_after) == (
            "store",
            "overloaded",
            True,
            1.0,
        )
        asked = servers.store.asked
        await refused(one, 400)
        assert servers.store.asked == asked, "for a second nobody asks again"
        servers.quiet += 1.5
        await refused(one, 400)
        await one[0].refresh()
        assert len(servers.told) == 1
        assert "cannot be counted" in servers.told[0]
        servers.store.down = False
        servers.quiet += 1.5
        await held(one, 400)
        assert servers.told[1:] == ["budgets are counted with the other servers again"]

    run(work)


def test_what_could_not_be_given_back_is_kept() -> None:
    async def work() -> None:
        servers = Servers()
        one = servers.open(Limits(tokens=1000))
        (await held(one, 800)).settle(0, 0)
        servers.store.down = True
        await one[0].refresh()
        await held(one, 800)
        servers.store.down = False
        servers.quiet += 2
        assert (await refused(one, 201)).left == 200

    run(work)


def test_what_can_never_be_had_is_not_waited_for_nor_asked() -> None:
    async def work() -> None:
        servers = Servers()
        one = servers.open()
        assert (await refused(one, 1001)).wait_s is None
        assert servers.store.asked == 0
        shut = servers.open(Limits(requests=0))
        assert (await refused(shut, 1)).wait_s is None

    run(work)


def test_a_server_that_stops_gives_everything_back() -> None:
    async def work() -> None:
        servers = Servers()
        one, other = servers.open(), servers.open()
        (await held(one, 1000, 500)).settle(30, 2)
        task = asyncio.create_task(one[0].run())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await held(other, 970, 498)
        assert sum(servers.store.places.values()) == 1

    run(work)


ACTS = st.one_of(
    st.tuples(st.just("take"), st.integers(0, 2), st.integers(0, 60), st.integers(0, 30)),
    st.tuples(st.just("settle"), st.integers(0, 9), st.floats(0, 1), st.floats(0, 1)),
    st.tuples(st.just("refresh"), st.integers(0, 2)),
    st.tuples(st.just("later"), st.sampled_from([0.1, 0.5, 7.0, 31.0])),
    st.tuples(st.just("killed"), st.integers(0, 2)),
    st.tuples(st.just("down"), st.booleans()),
)


@settings(max_examples=rounds(150, 3000), deadline=None)
@given(st.lists(ACTS, max_size=40))
def test_no_program_of_servers_goes_beyond_a_limit_nor_keeps_what_nobody_uses(acts: list[tuple[Any, ...]]) -> None:
    limits = Limits(requests=12, tokens=100, window_s=60, concurrent=3, money_micro=70, period_s=120)
    run(lambda: _program(acts, limits))


async def _program(acts: list[tuple[Any, ...]], limits: Limits) -> None:
    program = Program(limits)
    try:
        for act in acts:
            await getattr(program, act[0])(*act[1:])
            program.holds()
        await program.ends()
    finally:
        program.servers.store.down = False
        for accounts in program.opened:  # also those that were killed: their threads
            accounts.leave()


class Program:
    """Three servers of which acts are asked; what was given is counted here, by itself."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.servers = Servers(now=1_000_080.0)
        self.every = [self.servers.open(limits) for _ in range(3)]
        self.opened = [accounts for accounts, _ in self.every]
        self.taken: list[list[float]] = []
        """When, tokens, money: what was reserved, or then used."""
        self.under_way: list[tuple[int, Reservation, list[float]]] = []
        self.lost = False

    async def take(self, number: int, tokens: int, money: int) -> None:
        got = await self.every[number][0].take([self.every[number][1]], tokens, money)
        if isinstance(got, Reservation):
            self.taken.append([self.servers.now, tokens, money])
            self.under_way.append((number, got, self.taken[-1]))

    async def settle(self, at: int, tokens: float, money: float) -> None:
        if self.under_way:
            _, reservation, row = self.under_way.pop(at % len(self.under_way))
            row[1], row[2] = int(row[1] * tokens), int(row[2] * money)
            reservation.settle(row[1], row[2])

    async def refresh(self, number: int) -> None:
        await self.every[number][0].refresh()

    async def later(self, seconds: float) -> None:
        self.servers.now += seconds
        self.servers.quiet += seconds

    async def killed(self, number: int) -> None:
        self.every[number] = self.servers.open(self.limits)
        self.opened.append(self.every[number][0])
        self.under_way = [one for one in self.under_way if one[0] != number]
        self.lost = True

    async def down(self, down: bool) -> None:
        self.servers.store.down = down

    def used(self) -> tuple[int, int, int]:
        now = self.servers.now
        window = [row for row in self.taken if row[0] >= now // 60 * 60]
        money = sum(row[2] for row in self.taken if row[0] >= now // 120 * 120)
        return len(window), int(sum(row[1] for row in window)), int(money)

    def holds(self) -> None:
        requests, tokens, money = self.used()
        assert requests <= (self.limits.requests or 0)
        assert tokens <= (self.limits.tokens or 0)
        assert money <= (self.limits.money_micro or 0)
        assert len(self.under_way) <= (self.limits.concurrent or 0)

    async def ends(self) -> None:
        """When all are quiet, whatever was not used may be used by anyone, unless somebody took it to the grave."""
        await self.down(False)
        self.servers.quiet += 60
        while self.under_way:
            await self.settle(0, 1, 1)
        for number in range(3):
            await self.refresh(number)
        requests, tokens, money = self.used()
        if requests < (self.limits.requests or 0) and not self.lost:
            rest = (self.limits.tokens or 0) - tokens, (self.limits.money_micro or 0) - money
            (await held(self.every[0], *rest)).settle(0, 0)
        if not self.lost:
            for accounts in self.opened:
                accounts.leave()
            _, tokens, money = self.used()
            counted = self.servers.store.used
            now = self.servers.now
            assert counted.get(f"app/key:web:tokens:60:{now // 60 * 60:.3f}", 0) == tokens
            assert counted.get(f"app/key:web:money:120:{now // 120 * 120:.3f}", 0) == money
