"""The contract of budget stores: derive from `BudgetStoreContract` and give it your adapter to open."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.ports.budgets import BudgetStore, Drawn, Hold, Rest, Want

if TYPE_CHECKING:
    import pytest
else:
    pytest = lazy("pytest")

__all__ = ["BudgetStoreContract", "Opening", "want"]

Opening = Callable[[], BudgetStore]


def want(counter: str = "tokens", limit: int = 100, least: int = 1, wish: int = 1, before: int = 0) -> Want:
    """A want of a test, whose counter outlasts it."""
    return Want(counter, limit, least, wish, before, 600.0)


class BudgetStoreContract:
    """What every budget store does; give a fixture ``opening`` that opens one more client of the same empty place."""

    @pytest.fixture
    def opening(self) -> Opening:
        """Opens a store."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, opening: Opening) -> BudgetStore:
        """One client."""
        return opening()

    def test_a_counter_gives_no_more_than_its_limit(self, opening: Opening) -> None:
        """Two clients draw from one counter."""
        one, other = opening(), opening()
        assert one.draw([want(least=5, wish=60)]) == [Drawn(60, 40)]
        assert other.draw([want(least=5, wish=60)]) == [Drawn(40, 0)]
        assert one.draw([want(least=1, wish=60)]) == [Drawn(0, 0)]

    def test_less_than_is_needed_is_not_drawn(self, store: BudgetStore) -> None:
        """All that is needed, or nothing."""
        store.draw([want(wish=90)])
        assert store.draw([want(least=11, wish=20)]) == [Drawn(0, 10)]
        assert store.draw([want(least=10, wish=20)]) == [Drawn(10, 0)]

    def test_counters_are_drawn_from_each_by_itself(self, store: BudgetStore) -> None:
        """One that has too little keeps no other from being drawn from."""
        wants = [want("b", limit=5, least=9, wish=9), want("a", limit=7, least=2, wish=3)]
        assert store.draw(wants) == [Drawn(0, 5), Drawn(3, 4)]
        assert store.draw([]) == []

    def test_a_new_counter_begins_with_what_was_before_and_only_then(self, store: BudgetStore) -> None:
        """``before`` is of a counter that is not there yet."""
        assert store.draw([want(before=95, wish=3)]) == [Drawn(3, 2)]
        assert store.draw([want(before=10, wish=3)]) == [Drawn(2, 0)]
        assert store.draw([want("spent", before=120, wish=3)]) == [Drawn(0, 0)], "more was spent than there is now"

    def test_large_numbers_are_exact(self, store: BudgetStore) -> None:
        """Up to 2**53."""
        many = 9_007_199_254_740_000
        assert store.draw([want(limit=many, wish=many - 1)]) == [Drawn(many - 1, 1)]
        assert store.draw([want(limit=many, wish=9)]) == [Drawn(1, 0)]

    def test_a_limit_that_is_lowered_gives_nothing(self, store: BudgetStore) -> None:
        """What was drawn stays drawn."""
        store.draw([want(wish=80)])
        assert store.draw([want(limit=50)]) == [Drawn(0, 0)]
        assert store.draw([want(limit=100)]) == [Drawn(1, 19)]

    def test_what_is_given_back_is_there_again(self, store: BudgetStore) -> None:
        """Of counters that are there, and down to 0."""
        store.draw([want(wish=100), want("other", wish=10)])
        store.give_back([Rest("tokens", 30), Rest("other", 500), Rest("nobody's", 5)])
        assert store.draw([want(wish=50), want("other", wish=200), want("nobody's", wish=1)]) == [
            Drawn(30, 0),
            Drawn(100, 0),
            Drawn(1, 99),
        ]
        store.give_back([])

    def test_what_was_used_beyond_is_counted(self, store: BudgetStore) -> None:
        """A rest below 0 is drawn without asking."""
        store.draw([want(wish=90)])
        store.give_back([Rest("tokens", -25)])
        assert store.draw([want()]) == [Drawn(0, 0)]
        store.give_back([Rest("tokens", 20)])
        assert store.draw([want(wish=9)]) == [Drawn(5, 0)]

    def test_a_counter_is_forgotten_after_its_time(self, store: BudgetStore) -> None:
        """Its window is long over."""
        short = Want("short", 10, 1, 10, 0, 0.05)
        store.draw([short])
        time.sleep(0.1)
        store.draw([want("another")])  # one that is made may sweep others
        assert store.draw([short]) == [Drawn(10, 0)]

    def test_places_are_held_by_members(self, opening: Opening) -> None:
        """Each member as many as it says last."""
        one, other = opening(), opening()
        assert one.hold("one", [Hold("web", 5, 3)], 60) == [Drawn(3, 2)]
        assert other.hold("other", [Hold("web", 5, 3)], 60) == [Drawn(2, 0)]
        assert one.hold("one", [Hold("web", 5, 1)], 60) == [Drawn(1, 2)], "in place of what it held"
        assert other.hold("other", [Hold("web", 5, 4), Hold("app", 1, 1)], 60) == [Drawn(4, 0), Drawn(1, 0)]
        assert one.hold("one", [Hold("web", 5, 0)], 60) == [Drawn(0, 1)]
        assert other.hold("other", [Hold("web", 5, 9)], 60) == [Drawn(5, 0)]
        assert other.hold("other", [], 60) == []

    def test_places_of_a_member_that_is_gone_are_free_again(self, store: BudgetStore) -> None:
        """Nobody gives them up for it."""
        assert store.hold("gone", [Hold("web", 2, 2)], 0.05) == [Drawn(2, 0)]
        time.sleep(0.1)
        assert store.hold("here", [Hold("web", 2, 2)], 60) == [Drawn(2, 0)]

    def test_many_at_once_share_one_limit(self, opening: Opening) -> None:
        """In whatever order they name the counters."""
        stores = [opening() for _ in range(4)]

        def drawing(number: int) -> int:
            wants = [want("first", 997, 1, 7), want("second", 499, 3, 3)]
            return sum(part.got for part in stores[number % 4].draw(wants if number % 2 else wants[::-1]))

        with ThreadPoolExecutor(8) as threads:
            got = sum(threads.map(drawing, range(250)))
        assert got == 997 + 498, "498 are what threes can take of 499"

    def test_many_at_once_share_the_places(self, opening: Opening) -> None:
        """Members that hold at one moment."""
        stores = [opening() for _ in range(4)]
        with ThreadPoolExecutor(4) as threads:
            held = list(threads.map(lambda n: stores[n].hold(f"m{n}", [Hold("web", 10, 4)], 60)[0].got, range(4)))
        assert sum(held) == 10
