"""What a request costs: whole micro-units of money, from a price table with versions."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mainspring.ports.llm import Usage

__all__ = ["Price", "PriceTable", "cost_micro", "most_micro"]

_MILLION = 1_000_000


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """A model's price, in micro-units of money for a million tokens of each kind.

    Attributes:
        provider: who charges.
        model: the engine's own name of the model.
        version: names the price in records of what was charged.
        valid_from_ns: UTC nanoseconds since 1970.
        input: tokens of the prompt that are neither read from a cache nor written to it.
        cached_read: tokens of the prompt that were.
        cache_write: tokens of the prompt that were stored.
        output: tokens of the answer.
        reasoning: tokens that the model thought with; None is as `output`.
    """

    provider: str
    model: str
    version: str
    valid_from_ns: int = 0
    input: int = 0
    cached_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int | None = None


class PriceTable:
    """Prices by provider, model and moment."""

    __slots__ = ("_by_model",)

    def __init__(self, prices: Iterable[Price] = ()) -> None:
        self._by_model: dict[tuple[str, str], list[Price]] = {}
        for price in prices:
            self._by_model.setdefault((price.provider, price.model), []).append(price)
        for versions in self._by_model.values():
            versions.sort(key=lambda price: -price.valid_from_ns)

    def find(self, provider: str, model: str, at_ns: int) -> Price | None:
        """The price that holds at a moment, or None when nobody wrote one down."""
        versions = self._by_model.get((provider, model))
        if versions is None or versions[0].valid_from_ns <= at_ns:
            return None if versions is None else versions[0]
        return next((price for price in versions if price.valid_from_ns <= at_ns), None)


def cost_micro(price: Price, usage: Usage) -> int:
    """What a request costs, in micro-units: ``ceil(sum of tokens x price / 10^6)`` in whole numbers."""
    reasoning = price.output if price.reasoning is None else price.reasoning
    fresh = usage.prompt - usage.cached - usage.cache_write
    answered = usage.completion - usage.reasoning
    total = (
        (fresh if fresh > 0 else 0) * price.input
        + usage.cached * price.cached_read
        + usage.cache_write * price.cache_write
        + (answered if answered > 0 else 0) * price.output
        + usage.reasoning * reasoning
    )
    return -(-total // _MILLION)


def most_micro(price: Price, prompt: int, completion: int) -> int:
    """The most that so many tokens of prompt and answer can cost, whatever their kinds, in micro-units."""
    dearest_in = max(price.input, price.cached_read, price.cache_write)
    dearest_out = max(price.output, price.reasoning or 0)
    return -(-(prompt * dearest_in + completion * dearest_out) // _MILLION)
