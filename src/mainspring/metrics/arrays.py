"""What every metric asks of its inputs: flat arrays of one length."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from mainspring.errors import DataError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Ints: TypeAlias = NDArray[np.int64]
else:
    np = lazy("numpy")

__all__ = ["aligned", "as_floats"]


def as_floats(values: ArrayLike) -> Floats:
    """`values` as float64, booleans as 0 and 1; a null (None) becomes NaN."""
    return np.asarray(values, dtype=np.float64)


def aligned(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> tuple[Floats, Floats, Floats]:
    """Truth (n,), predictions (n,) or (n, classes) and weights (n,), all float64; weights default to ones.

    Raises:
        DataError: MS-2401, when the lengths differ.
    """
    truth = as_floats(y).ravel()
    predicted = as_floats(p)
    weights = np.ones(len(truth)) if weight is None else as_floats(weight).ravel()
    if len(predicted) != len(truth) or len(weights) != len(truth):
        raise DataError(
            "truth, predictions and weights differ in length",
            code="MS-2401",
            why=f"{len(truth)} labels, {len(predicted)} predictions, {len(weights)} weights",
            fix="join the labels to the predictions by id first",
        )
    return truth, predicted, weights
