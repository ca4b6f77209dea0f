"""Decimals as exact as a column's: Python's own context rounds to 28 digits what has up to 38."""

from __future__ import annotations

from decimal import Context, Decimal, InvalidOperation

__all__ = ["EXACT", "to_scale"]

EXACT = Context(prec=76)
"""More digits than any column has, before and after the point."""


def to_scale(value: Decimal, scale: int) -> Decimal:
    """The nearest decimal with so many digits after the point.

    Raises:
        ValueError: it is no finite number, or has more digits than any column.
    """
    try:
        return value.quantize(Decimal(1).scaleb(-scale), context=EXACT)
    except InvalidOperation:
        raise ValueError("it has too many digits") from None
