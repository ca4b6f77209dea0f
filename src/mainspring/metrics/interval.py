"""A number with its confidence interval."""

from __future__ import annotations

import msgspec

__all__ = ["Interval", "PairedResult"]


class Interval(msgspec.Struct, frozen=True):
    """An estimate and its interval.

    Args:
        value: the point estimate; NaN when undefined.
        low: lower bound; NaN when undefined.
        high: upper bound; NaN when undefined.
        n: rows behind it.
        why: why something is undefined; empty when nothing is.
    """

    value: float
    low: float
    high: float
    n: int
    why: str = ""


class PairedResult(msgspec.Struct, frozen=True):
    """One model against another on the same rows.

    Args:
        delta: metric of the new model less that of the live one.
        low: lower bound of delta.
        high: upper bound of delta.
        p_win: share of resamples where the new model is the better one (ties one half), whichever way the metric runs.
        n: rows behind it.
        why: why something is undefined; empty when nothing is.
    """

    delta: float
    low: float
    high: float
    p_win: float
    n: int
    why: str = ""
