"""What an online read answers: values by row, and for each view whether it knew the entity, and since when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from mainspring.declare.data import did_you_mean
from mainspring.declare.record import ColumnType
from mainspring.errors import UsageError
from mainspring.features.calculate import native
from mainspring.features.view import arrow_type
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["Rows"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Rows:
    """The features of some entities, in the order of the question.

    Args:
        names: the features, in order.
        types: their types.
        rows: by entity, the values as online rows hold them: moments are microseconds, decimals text, dates ordinals.
        statuses: by view that was read, PRESENT, MISSING or EXPIRED of each entity.
        events: by view, when the row that answers happened, UTC microseconds, or None.
    """

    __slots__ = ("events", "names", "rows", "statuses", "types")

    def __init__(
        self,
        names: tuple[str, ...],
        types: tuple[ColumnType, ...],
        rows: Sequence[Sequence[Any]],
        statuses: Mapping[str, Sequence[str]],
        events: Mapping[str, Sequence[int | None]],
    ) -> None:
        self.names = names
        self.types = types
        self.rows = rows
        self.statuses = statuses
        self.events = events

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Rows({len(self)} rows: {', '.join(self.names)})"

    def columns(self) -> dict[str, list[Any]]:
        """The values of each feature, as Python's: aware datetimes in UTC, dates, decimals, lists; None is missing."""
        return dict(zip(self.names, self._python(), strict=True))

    def dicts(self) -> list[dict[str, Any]]:
        """A mapping from feature to value for each entity; values as of `columns`."""
        if not self.names:
            return [{} for _ in self.rows]
        return [dict(zip(self.names, row, strict=True)) for row in zip(*self._python(), strict=True)]

    def arrow(self) -> pa.Table:
        """A table (entities, features) in the types of the features."""
        arrays = [pa.array(column, arrow_type(kind)) for kind, column in zip(self.types, self._python(), strict=True)]
        return pa.table(arrays, names=list(self.names))

    def status(self, view: str) -> list[str]:
        """Of a feature view: PRESENT, MISSING or EXPIRED, by entity.

        Raises:
            UsageError: MS-2165, the view was not read.
        """
        return list(self.statuses[self._read(view)])

    def event_time(self, view: str) -> list[datetime | None]:
        """Of a feature view: when the row that answers happened, by entity.

        Raises:
            UsageError: MS-2165, the view was not read.
        """
        moments = self.events[self._read(view)]
        return [None if us is None else _EPOCH + timedelta(microseconds=us) for us in moments]

    def _read(self, view: str) -> str:
        if view not in self.statuses:
            raise UsageError(
                f"no feature view {view!r} was read", code="MS-2165", fix=did_you_mean(view, self.statuses)
            )
        return view

    def _python(self) -> list[list[Any]]:
        columns = zip(*self.rows, strict=True) if self.rows else iter([()] * len(self.names))
        return [_column(column, native(kind)) for column, kind in zip(columns, self.types, strict=True)]


def _column(values: Sequence[Any], read: Callable[[Any], Any] | None) -> list[Any]:
    return list(values) if read is None else [None if value is None else read(value) for value in values]
