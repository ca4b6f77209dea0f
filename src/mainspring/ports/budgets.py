"""The port for budgets that several servers have in common: counters that are drawn from, and places that are held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

__all__ = ["BudgetStore", "Drawn", "Hold", "Rest", "Want"]


class Want(msgspec.Struct, frozen=True):
    """What a server would draw from a counter, to give it out by itself.

    Attributes:
        counter: whose it is, of what, and of which window: another window is another counter.
        limit: how much there is in all.
        least: how much it needs; less is of no use.
        wish: how much it would have, at least `least`.
        before: what a counter that is not there yet has seen already.
        lasts_s: seconds after which the counter may be forgotten.
    """

    counter: str
    limit: int
    least: int
    wish: int
    before: int
    lasts_s: float


class Drawn(msgspec.Struct, frozen=True):
    """What a server got.

    Attributes:
        got: between `least` and `wish`, or 0; of places, how many are held now.
        left: how much nobody has drawn.
    """

    got: int
    left: int


class Rest(msgspec.Struct, frozen=True):
    """What was drawn and is not needed; below 0, what was used beyond what was drawn."""

    counter: str
    amount: int


class Hold(msgspec.Struct, frozen=True):
    """How many places of an account a server would hold.

    Attributes:
        account: whose they are.
        most: how many there are in all.
        places: how many; 0 gives all of them up.
    """

    account: str
    most: int
    places: int


class BudgetStore(Protocol):
    """Where servers count together; threads may share it. Each call is one step for everybody else.

    Raises:
        ServiceError: each method, when the other side does not answer or refuses.
    """

    def draw(self, wants: Sequence[Want]) -> list[Drawn]:
        """Draw from counters, each by itself, so that no counter ever goes beyond its limit."""
        ...

    def give_back(self, rests: Sequence[Rest]) -> None:
        """Give back what was drawn; a counter that is gone is left alone, and none falls below 0."""
        ...

    def hold(self, member: str, holds: Sequence[Hold], lasts_s: float) -> list[Drawn]:
        """Hold places for `lasts_s` seconds, instead of those that this member held; fewer where others hold them."""
        ...

    def close(self) -> None:
        """Let go of the connections."""
        ...
