"""An endpoint: keys and request columns in, features looked up, a score out, the answer logged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol, TypeAlias

from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DataError

__all__ = [
    "Answer",
    "EndpointService",
    "FeatureReader",
    "Looked",
    "LookedUp",
    "ModelColumn",
    "PredictionSink",
    "Reading",
    "Scorer",
    "dates_among",
]


Looked: TypeAlias = tuple[Sequence[object], Mapping[str, str]]
"""What was looked up for a row: the features' values, and the status of each view."""


class FeatureReader(Protocol):
    """A compiled read of all features an endpoint needs."""

    def read_one(self, keys: Mapping[str, object], now_us: int) -> tuple[Sequence[object], Mapping[str, str]]:
        """The features' values in the plan's order, and the status of each view by name."""

    def read_many(self, entities: Sequence[Mapping[str, object]], moments: Sequence[int]) -> Sequence[Looked]:
        """The same for many, with one round trip to the store."""


class Scorer(Protocol):
    """The model version that answers now."""

    @property
    def version(self) -> str:
        """Its version."""

    def score(self, rows: Sequence[Sequence[object]]) -> Sequence[float]:
        """One score a row; a row holds the model's columns in order, None for what is missing."""


class PredictionSink(Protocol):
    """Where answers are logged."""

    def put(self, values: Sequence[object], score: float, version: str, ts_us: int) -> str:
        """Log one answer: the model's columns, then what is logged beside them; its prediction id."""


@dataclass(frozen=True, slots=True)
class ModelColumn:
    """A column of the model, in the model's order.

    Attributes:
        name: its name.
        type: its type.
        feature: its place among the features that are read, or None when the request carries it.
    """

    name: str
    type: ColumnType
    feature: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of an endpoint.

    Attributes:
        id: the prediction id, under which labels arrive later; empty when it was not logged.
        version: the model version that answered.
        score: the model's score: a probability for a boolean label, else the predicted number.
        prediction: the label that follows from the score.
        values: the model's columns, in order.
        statuses: the status of each feature view: PRESENT, MISSING or EXPIRED.
        columns: what the values are of.
    """

    id: str
    version: str
    score: float
    prediction: bool | float
    values: tuple[object, ...]
    statuses: Mapping[str, str]
    columns: tuple[ModelColumn, ...] = ()


_ACCEPTED: Mapping[Kind, tuple[type, ...]] = {
    Kind.STRING: (str,),
    Kind.INTEGER: (int,),
    Kind.FLOAT: (float, int),
    Kind.BOOLEAN: (bool,),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 1 << 63
_FIRST_DAY = _EPOCH.toordinal()


def _microseconds(value: object) -> float:
    """RFC 3339 with a zone, or microseconds since 1970, as trainers see moments."""
    if not isinstance(value, str):
        return _plain_number(value)
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _days(value: object) -> float:
    """``2025-06-01``, or days since 1970."""
    if not isinstance(value, str):
        return _plain_number(value)
    return (date.fromisoformat(value) - _EPOCH.date()).days


def _decimal(value: object) -> float:
    """A number, or its digits as text."""
    return _plain_number(float(value) if isinstance(value, str) else value)


def _with_days(vector: tuple[object, ...], dates: Sequence[int]) -> tuple[object, ...]:
    found: list[Any] = list(vector)
    for place in dates:
        if found[place] is not None:
            found[place] -= _FIRST_DAY
    return tuple(found)


def _plain_number(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError
    return value  # type: ignore[return-value]


_READ: Mapping[Kind, tuple[Callable[[object], float], str]] = {
    Kind.TIMESTAMP: (_microseconds, "2025-06-01T00:00:00Z, or microseconds since 1970"),
    Kind.DATE: (_days, "2025-06-01, or days since 1970"),
    Kind.DECIMAL: (_decimal, "12.50, as a number or as text"),
}
"""How columns that JSON has no type for become the number that the model was trained on, and how they are written."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A model version with what it reads.

    Attributes:
        scorer: the version.
        reader: looks its features up.
        columns: its columns, in order.
        dates: as `dates_among` its columns.
    """

    scorer: Scorer
    reader: FeatureReader
    columns: tuple[ModelColumn, ...]
    dates: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What was looked up for the rows of a request, and for which version: it is the one that answers."""

    rows: Sequence[Looked]
    reading: Reading


def dates_among(columns: Sequence[ModelColumn]) -> tuple[int, ...]:
    """The places of features that are dates: online they are days since the year 1, for models those since 1970."""
    return tuple(place for place, one in enumerate(columns) if one.feature is not None and one.type.kind is Kind.DATE)


class EndpointService:
    """Answers for one endpoint.

    Args:
        name: the endpoint's name.
        model: the model's name.
        keys: the entity keys that the request carries, with their types; only a nullable one may be null or left out,
            and its features are then missing.
        columns: the model's columns.
        reader: called for the read plan that holds now.
        scorer: called for the model version that holds now.
        sink: where answers are logged, or None.
        boolean: whether the label is boolean.
        ignored: further columns of the rows that the label belongs to; a request may carry them.
        beside: those of them that are logged behind the model's columns, null where a request does not carry them.
        request: what the request carries besides for on-demand features, which check it themselves.
        own: called for a model version that reads by other definitions than the app's, or gives None.
        waits: whether looking features up waits for another machine, so that an event loop should not do it.
    """

    def __init__(
        self,
        name: str,
        model: str,
        keys: Mapping[str, ColumnType],
        columns: Sequence[ModelColumn],
        reader: Callable[[], FeatureReader],
        scorer: Callable[[], Scorer],
        sink: PredictionSink | None,
        *,
        boolean: bool,
        ignored: frozenset[str] = frozenset(),
        beside: Sequence[str] = (),
        request: Mapping[str, ColumnType] | None = None,
        own: Callable[[], Reading | None] = lambda: None,
        waits: bool = False,
    ) -> None:
        self.name = name
        self.waits = waits
        self.model = model
        self.keys = dict(keys)
        self.columns = tuple(columns)
        self._dates = dates_among(self.columns)
        self._reader = reader
        self._scorer = scorer
        self._own = own
        self._sink = sink
        self._boolean = boolean
        self.beside = tuple(beside)
        self._request = {column.name: column.type for column in columns if column.feature is None}
        self._optional = dict.fromkeys(name for name, kind in self.keys.items() if kind.nullable)
        self._read = {name: kind for name, kind in self._request.items() if kind.kind in _READ}
        self._carried = self.keys | dict(request or {}) | self._request
        self._taken = sorted(self._carried)
        self._known = frozenset(self._taken) | ignored

    @property
    def carried(self) -> Mapping[str, ColumnType]:
        """The columns that a question carries: keys, columns of the model, and what on-demand features ask for."""
        return self._carried

    @property
    def ignored(self) -> Sequence[str]:
        """Further columns that a question may carry."""
        return sorted(self._known - self._carried.keys())

    @property
    def boolean(self) -> bool:
        """Whether what is predicted is true or false."""
        return self._boolean

    def answer(self, rows: Sequence[Mapping[str, Any]], moments: Sequence[int]) -> list[Answer]:
        """Answer rows of one request with one call of the model.

        Args:
            rows: the entity keys and request columns of each.
            moments: the moment of each question, UTC microseconds.

        Raises:
            DataError: MS-2301, a column is missing or unknown; MS-2302, it has the wrong type.
        """
        return self.concluded(rows, moments, self.looked_up(rows, moments))

    def looked_up(self, rows: Sequence[Mapping[str, Any]], moments: Sequence[int]) -> LookedUp:
        """The first half of an answer: the rows checked, and their features looked up, in one round trip.

        Raises:
            DataError: as `answer`; StoreError, ServiceError: as the online store raises.
        """
        for row in rows:
            self._check(row)
        entities = [{**self._optional, **row} for row in rows] if self._optional else rows
        reading = self._own() or Reading(self._scorer(), self._reader(), self.columns, self._dates)
        if len(rows) == 1:
            return LookedUp((reading.reader.read_one(entities[0], moments[0]),), reading)
        return LookedUp(reading.reader.read_many(entities, moments), reading)

    def concluded(self, rows: Sequence[Mapping[str, Any]], moments: Sequence[int], looked: LookedUp) -> list[Answer]:
        """The second half: scored with one call of the model, and logged.

        Raises:
            DataError: MS-2302, a moment, date or decimal is none.
        """
        scorer, columns = looked.reading.scorer, looked.reading.columns
        vectors = []
        for row, (features, _) in zip(rows, looked.rows, strict=True):
            sent = self._numbers(row) if self._read else row
            vectors.append(tuple(sent.get(c.name) if c.feature is None else features[c.feature] for c in columns))
        if dates := looked.reading.dates:
            vectors = [_with_days(vector, dates) for vector in vectors]
        scores = scorer.score(vectors)
        version = scorer.version
        return [
            self._log(row, vector, columns, float(score), version, status, now_us)
            for row, vector, score, (_, status), now_us in zip(rows, vectors, scores, looked.rows, moments, strict=True)
        ]

    def record(self, rows: Sequence[Sequence[object]], scores: Sequence[float], version: str, now_us: int) -> list[str]:
        """Log answers that were given to the model's own columns, not to keys; their prediction ids.

        Args:
            rows: the model's columns of each, in order, None for what is missing.
            scores: one a row.
            version: the model version that answered.
            now_us: the moment of the question, UTC microseconds.

        Returns:
            An id a row; none where the endpoint does not log.
        """
        if self._sink is None:
            return []
        put, beside = self._sink.put, (None,) * len(self.beside)
        return [put((*row, *beside), score, version, now_us) for row, score in zip(rows, scores, strict=True)]

    def _log(
        self,
        row: Mapping[str, Any],
        vector: tuple[object, ...],
        columns: tuple[ModelColumn, ...],
        score: float,
        version: str,
        statuses: Mapping[str, str],
        now_us: int,
    ) -> Answer:
        logged = vector if columns is self.columns else self._by_name(vector, columns)
        logged = (*logged, *map(row.get, self.beside)) if self.beside else logged
        prediction_id = "" if self._sink is None else self._sink.put(logged, score, version, now_us)
        return Answer(
            prediction_id, version, score, score >= 0.5 if self._boolean else score, vector, statuses, columns
        )

    def _by_name(self, vector: tuple[object, ...], columns: tuple[ModelColumn, ...]) -> tuple[object, ...]:
        """Another version's columns in the order of the log, null where it has none of that name."""
        values = {column.name: value for column, value in zip(columns, vector, strict=True)}
        return tuple(values.get(column.name) for column in self.columns)

    def _check(self, row: Mapping[str, Any]) -> None:
        for name, kind in self._carried.items():
            value = row.get(name)
            if value is None:
                if not kind.nullable:
                    raise self._wrong(name, "is missing")
            else:
                self._typed(name, value, kind)
        if not self._known.issuperset(row):
            extra = ", ".join(sorted(set(row) - self._known)[:5])
            raise DataError(
                f"endpoint {self.name!r} takes no {extra}",
                code="MS-2301",
                fix=f"send {', '.join(self._taken)}",
            )

    def _numbers(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row, its moments, dates and decimals as numbers."""
        found = dict(row)
        for name, kind in self._read.items():
            value = row.get(name)
            if value is None:
                continue
            read, written = _READ[kind.kind]
            try:
                found[name] = read(value)
            except (ValueError, OverflowError):
                raise DataError(
                    f"column {name!r} of the request is {value!r}, not a {kind.kind.value}",
                    code="MS-2302",
                    fix=f"send {name} as {written}",
                ) from None
        return found

    def _wrong(self, name: str, why: str) -> DataError:
        return DataError(
            f"column {name!r} of the request {why}",
            code="MS-2301",
            fix=f"endpoint {self.name!r} takes {', '.join(self._taken)}",
        )

    def _typed(self, name: str, value: object, kind: ColumnType) -> None:
        accepted = _ACCEPTED.get(kind.kind)
        if accepted is None:
            return
        fits = type(value) in accepted
        if fits and isinstance(value, (int, float)):
            fits = -_INT64 <= value < _INT64 if kind.kind is Kind.INTEGER else math.isfinite(value)
        if not fits:
            raise DataError(
                f"column {name!r} of the request is {value!r}, not a {kind.kind.value}",
                code="MS-2302",
                fix=f"send {name} as {kind}",
            )
