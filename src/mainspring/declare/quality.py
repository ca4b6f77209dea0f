"""A check as a record: what the rows of a batch must satisfy, and what happens when they do not."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

from mainspring.declare.declaration import Declaration, name_of
from mainspring.declare.duration import spell
from mainspring.declare.origin import Origin
from mainspring.declare.record import ColumnType

__all__ = ["Check", "CheckKind", "OnFail"]

OnFail: TypeAlias = Literal["refuse", "quarantine", "warn"]
"""What a failing check does: nothing is committed; the rows are set aside; all is committed and it is told."""

_FEW = 5


class CheckKind(enum.StrEnum):
    """The kinds of check."""

    NOT_NULL = "not_null"
    UNIQUE = "unique"
    BETWEEN = "between"
    ONE_OF = "one_of"
    MATCHES = "matches"
    FRESH = "fresh"
    ROWS = "rows"
    REFERENCES = "references"
    DISTANCE = "distance"
    CONFORMS = "conforms"


_TABLE = frozenset({CheckKind.UNIQUE, CheckKind.FRESH, CheckKind.ROWS, CheckKind.DISTANCE})


@dataclass(frozen=True, slots=True)
class Check:
    """Something that the rows of a source or of a feature view must satisfy.

    Attributes:
        kind: what is checked.
        columns: of which columns; empty for checks of the table as a whole.
        on_fail: what happens when it fails.
        low: the least value, or None.
        high: the greatest value, or None.
        values: the allowed values.
        pattern: the regular expression that the whole text must match.
        age_us: how old the newest row may be, in microseconds.
        limit: the greatest distance, 0 to 1.
        least: the least number of rows; of ``distance``, fewer new rows than this are not judged.
        most: the greatest number of rows, or None.
        to: the source in which the values must be; None in a plan's values, where `log` says it.
        to_column: its column.
        to_type: the type of that column.
        log: the log of that source; filled in when the app is planned.
        name: what the column is called then: ``carriers.code``.
        schema: a pandera schema; None in a plan's values, where `reference` says where it is.
        reference: ``module:name`` of the schema; `digest` is of all that it says.
        digest: see `reference`.
        origin: where it was written.
    """

    kind: CheckKind
    columns: tuple[str, ...] = ()
    on_fail: OnFail = "refuse"
    low: object = None
    high: object = None
    values: tuple[object, ...] = ()
    pattern: str | None = None
    age_us: int | None = None
    limit: float | None = None
    least: int | None = None
    most: int | None = None
    to: Declaration[object] | None = field(default=None, compare=False)
    to_column: str = ""
    to_type: ColumnType | None = None
    log: str = ""
    name: str = ""
    schema: object = field(default=None, compare=False)
    reference: str = ""
    digest: str = ""
    origin: Origin | None = field(default=None, compare=False)

    @property
    def of_table(self) -> bool:
        """Whether it is about the batch as a whole, so that no single row is at fault."""
        return self.kind in _TABLE

    def __str__(self) -> str:
        return f"{self.kind.value}({', '.join([*self.columns, *self._limits()])})"

    def _limits(self) -> Iterable[str]:
        if self.kind is CheckKind.BETWEEN:
            yield from ("..." if value is None else str(value) for value in (self.low, self.high))
        elif self.kind is CheckKind.ONE_OF:
            many = len(self.values) > _FEW
            yield f"{len(self.values)} values" if many else ", ".join(map(repr, self.values))
        elif self.kind is CheckKind.MATCHES:
            yield repr(self.pattern)
        elif self.kind is CheckKind.FRESH:
            yield spell(cast(int, self.age_us))
        elif self.kind is CheckKind.ROWS:
            yield from (f"{name}={n}" for name, n in (("least", self.least), ("most", self.most)) if n is not None)
        elif self.kind is CheckKind.REFERENCES:
            yield self.name or f"{name_of(cast('Declaration[object]', self.to))}.{self.to_column}"
        elif self.kind is CheckKind.CONFORMS:
            yield self.name
        elif self.kind is CheckKind.DISTANCE:
            yield f"{self.limit:g}"
