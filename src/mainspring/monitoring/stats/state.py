"""What is kept of a block of values: counts and sums that merge exactly, in any order and grouping.

Sums are integers: fixed-point numbers in units of 2^-30 of the reference's span, measured from its 0.1 % quantile. So
replicas, windows and segments add up to the same bits as one count over all rows; sums of floats would not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from mainspring.errors import DataError

__all__ = ["UNIT", "BlockState", "empty_state", "merge"]

UNIT = 1 << 30
"""Fixed-point units in one span."""

_VERSION = 1


class BlockState(msgspec.Struct, frozen=True):
    """One feature in one block (an hour or a day of event time), whole or the part that one writer saw.

    Args:
        layout: digest of the grid or category list that it was counted on.
        counts: values per coarse cell; for categories the commonest, then one cell for the other known ones.
        fine: values per fine cell; empty when not asked for, and for categories.
        rows: rows seen.
        n: rows, each times its weight.
        n_null: nulls.
        n_nan: NaN.
        n_inf: infinities of either sign.
        n_zero: zeros.
        n_neg: values below zero, -inf left out.
        n_unseen: numbers outside the reference's range, or categories unknown to it.
        n_invalid: values that break a rule of the declared `Field`.
        vmin: least finite value; +inf when there is none.
        vmax: greatest finite value; -inf when there is none.
        sum: of the finite values, in units, each cut at 2^15 spans.
        sum2: of their squares in spans, in units, cut likewise.
        csum: of the values clipped to [2a - b, 2b - a], in units.
    """

    layout: str
    counts: tuple[int, ...]
    fine: tuple[int, ...] = ()
    rows: int = 0
    n: int = 0
    n_null: int = 0
    n_nan: int = 0
    n_inf: int = 0
    n_zero: int = 0
    n_neg: int = 0
    n_unseen: int = 0
    n_invalid: int = 0
    vmin: float = math.inf
    vmax: float = -math.inf
    sum: int = 0
    sum2: int = 0
    csum: int = 0

    @property
    def finite(self) -> int:
        """Rows with a finite number, weighted; for categories rows with a value."""
        return self.n - self.n_null - self.n_nan - self.n_inf

    def to_bytes(self) -> bytes:
        """MessagePack, the same bytes for equal states; at most 16 KiB for a full grid."""
        values = [getattr(self, name) for name in self.__struct_fields__]
        # A sum of squares can pass 64 bits, which MessagePack cannot hold as a number.
        wide = [_wide(value) for value in values[-3:]]
        return msgspec.msgpack.encode((_VERSION, *values[:-3], *wide))

    @staticmethod
    def from_bytes(data: bytes) -> BlockState:
        """The state of `to_bytes`.

        Raises:
            DataError: MS-2403, damaged bytes, or those of another version.
        """
        try:
            version, layout, counts, fine, *rest = msgspec.msgpack.decode(data)
        except (msgspec.DecodeError, ValueError, TypeError) as fault:
            raise _unreadable("its bytes are damaged") from fault
        if version != _VERSION or len(rest) != len(BlockState.__struct_fields__) - 3:
            raise _unreadable(f"it has version {version}, this program reads {_VERSION}")
        sums = [int.from_bytes(value, "little", signed=True) for value in rest[-3:]]
        return BlockState(layout, tuple(counts), tuple(fine), *rest[:-3], *sums)


def empty_state(layout: str, cells: int, fine: int = 0) -> BlockState:
    """The state of no rows: merging with it changes nothing."""
    return BlockState(layout, (0,) * cells, (0,) * fine)


def merge(states: Iterable[BlockState]) -> BlockState:
    """The state of all rows together; exact, so the order and the grouping do not matter.

    The fine counts survive only when every part has them.

    Raises:
        DataError: MS-2402, no states, or states counted on different grids.
    """
    parts = list(states)
    if not parts or len({part.layout for part in parts}) > 1:
        raise DataError(
            "states that were not counted on one grid cannot be added up",
            code="MS-2402",
            why=f"{len(parts)} states on {len({part.layout for part in parts})} grids",
            fix="add up the states of one feature under one version of the baseline",
        )
    if len(parts) == 1:
        return parts[0]
    fine = [part.fine for part in parts]
    known = BlockState.__struct_fields__  # `structs.fields` reads every annotation again each time
    names = [name for name in known if name.startswith(("n_", "sum", "csum")) or name in ("rows", "n")]
    return replace(
        parts[0],
        counts=_add([part.counts for part in parts]),
        fine=_add(fine) if all(fine) else (),
        vmin=min(part.vmin for part in parts),
        vmax=max(part.vmax for part in parts),
        **{name: sum(getattr(part, name) for part in parts) for name in names},
    )


def _add(rows: list[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*rows, strict=True)))


def _wide(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)


def _unreadable(why: str) -> DataError:
    return DataError(
        "a stored block of monitoring counts cannot be read",
        code="MS-2403",
        why=why,
        fix="register the monitor again, or count the block from the prediction log",
    )
