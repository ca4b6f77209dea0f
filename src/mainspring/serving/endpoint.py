"""An endpoint: keys and request columns in, features looked up, a score out, the answer logged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DataError
from mainspring.serving.calls import Reason, Rejected
from mainspring.serving.counts import ANSWERING, CallCounts, ModelCounts
from mainspring.serving.reading import (
    ANY,
    Answer,
    Asked,
    FeatureReader,
    Looked,
    LookedUp,
    ModelColumn,
    PredictionSink,
    Reading,
    Routes,
    Scorer,
    ShadowSink,
)
from mainspring.serving.rollout.shadow import Shadow, ShadowCall
from mainspring.serving.rollout.split import Role, Split, entity_key
from mainspring.serving.versions import ModelVersions

__all__ = [
    "ANY",
    "Answer",
    "Asked",
    "EndpointService",
    "FeatureReader",
    "Looked",
    "LookedUp",
    "ModelColumn",
    "PredictionSink",
    "Reading",
    "Routes",
    "Scorer",
    "ShadowSink",
    "dates_among",
]


_NO_PARTS: Mapping[str, str] = {}

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


def dates_among(columns: Sequence[ModelColumn]) -> tuple[int, ...]:
    """The places of features that are dates: online they are days since the year 1, for models those since 1970."""
    return tuple(place for place, one in enumerate(columns) if one.feature is not None and one.type.kind is Kind.DATE)


class _Watched:
    """A call of a version: how long it took, or that the model has failed, for the rollout and the counts."""

    __slots__ = ("_begun", "_counts", "_looked", "_vectors", "queue_ns", "scores")

    def __init__(self, counts: CallCounts, looked: LookedUp, vectors: Sequence[Sequence[object]]) -> None:
        self._counts = counts
        self._looked = looked
        self._vectors = vectors
        self.queue_ns = 0
        self.scores: Sequence[float] = ()

    def __enter__(self) -> _Watched:
        self._begun = time.perf_counter_ns()
        if (split := self._looked.split) is not None:
            split.begun(self._looked.reading.scorer.version)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        took, split, version = (
            time.perf_counter_ns() - self._begun,
            self._looked.split,
            self._looked.reading.scorer.version,
        )
        if split is not None:
            split.ended(version)
        if error is None:
            rows = len(self._vectors)
            columns = len(self._looked.reading.columns)
            self._counts.answered(1, rows, took - self.queue_ns, 8 * rows * columns, 8 * rows)
            self._counts.traced(rows, self.queue_ns, took - self.queue_ns)
            self._counts.scored(self.scores)
            if split is not None:
                split.answered(version, took)
            return
        self._counts.failed()
        # What the caller has sent, and what waits too long, is not the version's failure.
        if split is not None and isinstance(error, Exception) and not isinstance(error, (DataError, Rejected)):
            split.failed(version)


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
        waits: whether looking features up waits for another machine, so that an event loop should not do it.
        routes: the model's versions; without them the one of `scorer` answers everything.
        shadows: called for where a shadow's answers are logged; gives None where they are not.
        counts: where calls are counted; nowhere when left out.
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
        waits: bool = False,
        routes: Routes | None = None,
        shadows: Callable[[], ShadowSink | None] = lambda: None,
        counts: ModelCounts | None = None,
    ) -> None:
        self._counts = counts or ModelCounts(None, "")
        self.name = name
        self.waits = waits
        self.model = model
        self.keys = dict(keys)
        self.columns = tuple(columns)
        self._dates = dates_among(self.columns)
        self._reader = reader
        self._scorer = scorer
        self._sink = sink
        self._routes = routes
        self._shadows = shadows
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

    def answer(self, rows: Sequence[Mapping[str, Any]], moments: Sequence[int], asked: Asked = ANY) -> list[Answer]:
        """Answer rows of one request with one call of the model, or of each of the versions that they are parted among.

        Args:
            rows: the entity keys and request columns of each.
            moments: the moment of each question, UTC microseconds.
            asked: which version is asked for.

        Raises:
            DataError: MS-2301, a column is missing or unknown; MS-2302, it has the wrong type.
            Rejected: NO_VERSION, NOT_READY, the version that is asked for is not there.
        """
        return self.concluded(rows, moments, self.looked_up(rows, moments, asked))

    def looked_up(self, rows: Sequence[Mapping[str, Any]], moments: Sequence[int], asked: Asked = ANY) -> LookedUp:
        """The first half of an answer: the rows checked, and their features looked up, in one round trip a version.

        Raises:
            DataError: as `answer`; StoreError, ServiceError: as the online store raises.
        """
        for row in rows:
            self._check(row)
        if self._routes is None:
            reading = Reading(self._scorer(), self._reader(), self.columns, self._dates)
            return self._looked(rows, moments, reading, None)
        versions = self._routes.versions()
        if versions.default is None:
            self._scorer()  # says why there is none
        if versions.split is None and asked is ANY:
            return self._looked(rows, moments, self._reading(versions, str(versions.default)), None)
        places = self._parted(rows, versions, asked)
        found = []
        for version, mine in places.items():
            reading = self._reading(versions, version)
            mine_rows, mine_moments = [rows[place] for place in mine], [moments[place] for place in mine]
            found.append((tuple(mine), self._looked(mine_rows, mine_moments, reading, versions.split)))
        if len(found) == 1:
            return found[0][1]
        return LookedUp((), found[0][1].reading, tuple(found), versions.split)

    def _reading(self, versions: ModelVersions, number: str) -> Reading:
        live = versions.ready.get(number)
        if live is None or self._routes is None:
            there = ", ".join(sorted(versions.ready, key=int))
            raise Rejected(Reason.NO_VERSION, f"model {self.model!r} has version {there} ready, not {number}")
        return self._routes.reading(live)

    def _parted(
        self, rows: Sequence[Mapping[str, Any]], versions: ModelVersions, asked: Asked
    ) -> Mapping[str, Sequence[int]]:
        """The places of rows by the version that answers them."""
        split = versions.split
        if asked.version is not None:
            return {asked.version: range(len(rows))}
        if asked.label is not None:
            number = versions.labelled(asked.label)
            if number is None:
                there = ", ".join(sorted(versions.all_labels()))
                raise Rejected(Reason.NO_VERSION, f"model {self.model!r} has no label {asked.label!r}; it has {there}")
            return {number: range(len(rows))}
        if split is None or not split.share:
            return {str(versions.default): range(len(rows))}
        if asked.key:
            return {split.version(asked.key): range(len(rows))}
        keys = tuple(self.keys) or tuple(self._taken)
        found: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            found.setdefault(split.version(entity_key(row, keys)), []).append(place)
        return found

    def _looked(
        self, rows: Sequence[Mapping[str, Any]], moments: Sequence[int], reading: Reading, split: Split | None
    ) -> LookedUp:
        entities = [{**self._optional, **row} for row in rows] if self._optional else rows
        if len(rows) == 1:
            return LookedUp((reading.reader.read_one(entities[0], moments[0]),), reading, split=split)
        return LookedUp(reading.reader.read_many(entities, moments), reading, split=split)

    def concluded(self, rows: Sequence[Mapping[str, Any]], moments: Sequence[int], looked: LookedUp) -> list[Answer]:
        """The second half: scored with one call of each version, and logged.

        Raises:
            DataError: MS-2302, a moment, date or decimal is none.
        """
        if looked.parts:
            found: dict[int, Answer] = {}
            for places, part in looked.parts:
                mine = [rows[place] for place in places]
                answers = self.concluded(mine, [moments[place] for place in places], part)
                found |= dict(zip(places, answers, strict=True))
            return [found[place] for place in range(len(rows))]
        vectors = self._vectors(rows, looked)
        with self._watched(looked, vectors) as watched:
            scores = watched.scores = looked.reading.scorer.score(vectors)
        return self._scored(rows, moments, looked, vectors, scores)

    async def concluded_soon(
        self, rows: Sequence[Mapping[str, Any]], moments: Sequence[int], looked: LookedUp
    ) -> list[Answer]:
        """The same on an event loop, which goes on while the model computes.

        Raises:
            DataError: as `concluded`.
            Rejected: BUSY, too much waits for the model already.
        """
        if looked.parts:
            found: dict[int, Answer] = {}
            for places, part in looked.parts:
                mine = [rows[place] for place in places]
                answers = await self.concluded_soon(mine, [moments[place] for place in places], part)
                found |= dict(zip(places, answers, strict=True))
            return [found[place] for place in range(len(rows))]
        vectors = self._vectors(rows, looked)
        with self._watched(looked, vectors) as watched:
            scores, watched.queue_ns = await looked.reading.scorer.score_soon(vectors)
            watched.scores = scores
        return self._scored(rows, moments, looked, vectors, scores)

    def _watched(self, looked: LookedUp, vectors: Sequence[Sequence[object]]) -> _Watched:
        split, version = looked.split, looked.reading.scorer.version
        role = Role.CANARY if split is not None and version == split.canary else Role.STABLE
        counts = self._counts.of(self.model, version, "native", role)
        ANSWERING.set(counts)
        return _Watched(counts, looked, vectors)

    def _vectors(self, rows: Sequence[Mapping[str, Any]], looked: LookedUp) -> list[tuple[object, ...]]:
        """The model's columns of each row."""
        columns = looked.reading.columns
        vectors = []
        for row, (features, _) in zip(rows, looked.rows, strict=True):
            sent = self._numbers(row) if self._read else row
            vectors.append(tuple(sent.get(c.name) if c.feature is None else features[c.feature] for c in columns))
        if dates := looked.reading.dates:
            vectors = [_with_days(vector, dates) for vector in vectors]
        return vectors

    def _scored(
        self,
        rows: Sequence[Mapping[str, Any]],
        moments: Sequence[int],
        looked: LookedUp,
        vectors: Sequence[tuple[object, ...]],
        scores: Sequence[float],
    ) -> list[Answer]:
        """The answers, logged; a shadow is asked the same later."""
        version, split = looked.reading.scorer.version, looked.split
        canary = split is not None and version == split.canary
        answers = [
            self._log(row, vector, looked.reading, float(score), status, now_us, canary=canary)
            for row, vector, score, (_, status), now_us in zip(rows, vectors, scores, looked.rows, moments, strict=True)
        ]
        if split is not None and split.shadow is not None and version == split.stable:
            self._offer(split, split.shadow, rows, moments, answers)
        return answers

    def _offer(
        self,
        split: Split,
        shadow: Shadow,
        rows: Sequence[Mapping[str, Any]],
        moments: Sequence[int],
        answers: Sequence[Answer],
    ) -> None:
        """Let a shadow be asked the same later, with what it reads itself."""
        vectors: list[tuple[object, ...]] = []
        columns: list[tuple[ModelColumn, ...]] = []
        routes = self._routes
        assert routes is not None

        def asked() -> Sequence[float]:
            reading = self._reading(routes.versions(), split.canary)
            vectors.extend(self._vectors(rows, self._looked(rows, moments, reading, None)))
            columns.append(reading.columns)
            return reading.scorer.score(vectors)

        def log(scores: Sequence[float]) -> None:
            sink = self._shadows()
            if sink is None:
                return
            for row, vector, score, given, now_us in zip(rows, vectors, scores, answers, moments, strict=True):
                identity = bytes.fromhex(given.id) or None
                logged = vector if columns[0] is self.columns else self._by_name(vector, columns[0])
                logged = (*logged, *map(row.get, self.beside))
                sink.put(logged, float(score), split.canary, now_us, role=Role.SHADOW, identity=identity)

        shadow.offer(ShadowCall(asked, [answer.score for answer in answers], log))

    def record_shadow(
        self, rows: Sequence[Sequence[object]], scores: Sequence[float], version: str, now_us: int, ids: Sequence[str]
    ) -> None:
        """Log what a shadow would have answered to the model's own columns, under the ids of the answers.

        Args:
            rows: the model's columns of each, in order, None for what is missing.
            scores: one a row.
            version: the shadow's.
            now_us: the moment of the question, UTC microseconds.
            ids: the prediction id of each row; empty where the answers were not logged.
        """
        if (sink := self._shadows()) is None:
            return
        beside = (None,) * len(self.beside)
        for row, score, given in zip(rows, scores, ids or [""] * len(rows), strict=True):
            identity = bytes.fromhex(given) or None
            sink.put((*row, *beside), float(score), version, now_us, role=Role.SHADOW, identity=identity)

    def record(
        self,
        rows: Sequence[Sequence[object]],
        scores: Sequence[float],
        version: str,
        now_us: int,
        *,
        canary: bool = False,
        parts: Mapping[str, str] = _NO_PARTS,
    ) -> list[str]:
        """Log answers that were given to the model's own columns, not to keys; their prediction ids.

        Args:
            rows: the model's columns of each, in order, None for what is missing.
            scores: one a row.
            version: the model version that answered.
            now_us: the moment of the question, UTC microseconds.
            canary: whether the version is tried beside the one that answers the rest.
            parts: of a composition, the version of each of its models.

        Returns:
            An id a row; none where the endpoint does not log.
        """
        if (sink := self._sink) is None:
            return []
        if self.beside or parts:
            beside = (*(None,) * len(self.beside), *map(int, parts.values()))
            rows = [(*row, *beside) for row in rows]
        put = partial(sink.put, role=Role.CANARY) if canary else sink.put
        return [put(row, score, version, now_us) for row, score in zip(rows, scores, strict=True)]

    def _log(
        self,
        row: Mapping[str, Any],
        vector: tuple[object, ...],
        reading: Reading,
        score: float,
        statuses: Mapping[str, str],
        now_us: int,
        *,
        canary: bool = False,
    ) -> Answer:
        columns, version, parts = reading.columns, reading.scorer.version, reading.parts
        logged = vector if columns is self.columns else self._by_name(vector, columns)
        logged = (*logged, *map(row.get, self.beside)) if self.beside else logged
        logged = (*logged, *map(int, parts.values())) if parts else logged
        sink, prediction_id = self._sink, ""
        if sink is not None:
            put = partial(sink.put, role=Role.CANARY) if canary else sink.put
            prediction_id = put(logged, score, version, now_us)
        return Answer(
            prediction_id, version, score, score >= 0.5 if self._boolean else score, vector, statuses, columns, parts
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
