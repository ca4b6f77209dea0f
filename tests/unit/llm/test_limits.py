"""Budgets: exact against a slow model of them, for any order of requests, ends and ticks of the clock."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.llm.limits import Accounts, Denied, Reservation
from mainspring.llm.values import Limits


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 40), st.integers(0, 40)),
        st.tuples(st.just("end"), st.integers(0, 10), st.integers(0, 40)),
        st.tuples(st.just("tick"), st.integers(1, 40), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(STEPS, st.booleans())
def test_no_window_ever_holds_more_than_its_limit(steps: list[tuple[str, int, int]], two: bool) -> None:
    clock = Clock()
    accounts = Accounts(clock)
    limits = Limits(requests=6, tokens=100, window_s=60, concurrent=3, money_micro=90, period_s=120)
    found = [accounts.add("key:a", limits)] + (
        [accounts.add("tenant:t", Limits(tokens=70, window_s=30))] if two else []
    )
    mine = [account for account in found if account is not None]
    held: list[tuple[Reservation, int, int, float]] = []
    used: list[tuple[float, int, int]] = []  # when it was taken, tokens, money: reserved until it is settled

    def inside(window: float, place: int) -> int:
        begin = clock.now // window * window
        rows = [row for row in used if row[0] >= begin]
        return len(rows) if place == 0 else sum(row[place] for row in rows)

    for what, first, second in steps:
        if what == "tick":
            clock.now += first
        elif what == "ask":
            fits = (
                len(held) < 3
                and inside(60, 0) < 6
                and inside(60, 1) + first <= 100
                and inside(120, 2) + second <= 90
                and (not two or inside(30, 1) + first <= 70)
            )
            got = accounts.reserve(mine, first, second)
            assert isinstance(got, Reservation) == fits
            if isinstance(got, Reservation):
                used.append((clock.now, first, second))
                held.append((got, first, second, clock.now))
        elif held:
            reservation, tokens, money, at = held.pop(first % len(held))
            spent = min(second, tokens)
            used[used.index((at, tokens, money))] = (at, spent, money)
            reservation.settle(spent, money)
            reservation.settle(0, 0)  # only the first counts
        assert inside(60, 1) <= 100
        assert mine[0].used_tokens == inside(60, 1)


def test_what_is_denied_says_how_much_is_left_and_when_to_come_back() -> None:
    clock = Clock()
    accounts = Accounts(clock)
    account = accounts.add("key:web", Limits(tokens=100, window_s=60))
    assert account is not None
    assert isinstance(accounts.reserve([account], 80, 0), Reservation)
    denied = accounts.reserve([account], 30, 0)
    assert isinstance(denied, Denied)
    assert (denied.what, denied.account, denied.limit, denied.left, denied.asked) == ("tokens", "key:web", 100, 20, 30)
    assert denied.wait_s is not None
    clock.now += denied.wait_s
    assert isinstance(accounts.reserve([account], 30, 0), Reservation)


def test_a_request_that_never_fits_is_not_told_to_wait() -> None:
    accounts = Accounts(Clock())
    account = accounts.add("key:web", Limits(tokens=100))
    assert account is not None
    denied = accounts.reserve([account], 101, 0)
    assert isinstance(denied, Denied)
    assert denied.wait_s is None


def test_money_that_was_spent_before_the_restart_counts() -> None:
    accounts = Accounts(Clock(), {"key:web": 95})
    account = accounts.add("key:web", Limits(money_micro=100))
    assert account is not None
    assert isinstance(accounts.reserve([account], 0, 6), Denied)
    assert isinstance(accounts.reserve([account], 0, 5), Reservation)
