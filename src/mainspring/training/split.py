"""Dividing a training set by time: what is judged is newer than all that is fitted, and a gap lies between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mainspring.declare.frame import Frame
from mainspring.errors import DataError
from mainspring.lazy import lazy
from mainspring.training.sets import AT, KNOWN

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
else:
    np, pa = lazy("numpy"), lazy("pyarrow")

__all__ = ["FEWEST", "Split", "parts", "split"]

FEWEST = 10
"""The fewest rows to learn from, and to judge on."""


class Split(msgspec.Struct, frozen=True):
    """How rows are divided by time.

    Attributes:
        train: rows to fit on.
        evaluate: the newest rows, to judge on.
        from_us: the first moment that is judged.
        cutoff_us: rows fitted on are older than this, and their label was known by then.
    """

    train: int
    evaluate: int
    from_us: int
    cutoff_us: int


def split(frame: Frame, holdout: float, gap_us: int) -> Split:
    """Divide by time: the newest share is judged; what is fitted was over, and its label known, a gap before.

    Rows of one moment stay together, so that the judged share may be a little larger.

    Args:
        frame: a training set, by rising `AT`.
        holdout: the share of rows to judge on, in (0, 1).
        gap_us: microseconds between the two.

    Raises:
        DataError: MS-2203, one of the parts has fewer than `FEWEST` rows.
    """
    at, known = _moments(frame, AT), _moments(frame, KNOWN)
    first = int(at[min(int(len(at) * (1 - holdout)), len(at) - 1)])
    cutoff = first - gap_us
    evaluate = int(np.count_nonzero(at >= first))
    older = at < cutoff
    train = int(np.count_nonzero(older & (known <= cutoff)))
    if min(evaluate, train) < FEWEST:
        raise DataError(
            f"{len(at)} rows cannot be divided into a part to learn from and a part to judge on",
            code="MS-2203",
            why=f"{train} rows to learn from, {evaluate} to judge on, {FEWEST} are the fewest; the label of "
            f"{int(np.count_nonzero(older)) - train} older rows was not known by the end of the first part",
            fix="bring more rows, or change holdout= or gap=",
        )
    return Split(train, evaluate, first, cutoff)


def parts(frame: Frame, how: Split) -> tuple[Frame, Frame]:
    """The rows to fit on and the rows to judge on."""
    at, known = _moments(frame, AT), _moments(frame, KNOWN)
    table = frame.arrow()
    return (
        Frame(table.filter(_mask((at < how.cutoff_us) & (known <= how.cutoff_us)))),
        Frame(table.filter(_mask(at >= how.from_us))),
    )


# Buffers are handed over directly: the convenient ways import pandas where it is installed.
def _mask(rows: NDArray[np.bool_]) -> pa.BooleanArray:
    return pa.Array.from_buffers(pa.bool_(), len(rows), [None, pa.py_buffer(np.packbits(rows, bitorder="little"))])


def _moments(frame: Frame, name: str) -> NDArray[np.int64]:
    moments = frame.arrow().column(name).combine_chunks()
    if moments.null_count or not len(moments):
        return np.asarray(moments.cast(pa.int64()))
    return np.frombuffer(moments.buffers()[1], np.int64, len(moments), moments.offset * 8)
