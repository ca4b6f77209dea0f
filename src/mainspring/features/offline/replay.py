"""Online answers computed again offline: the same, late, or a mismatch that no late row explains.

An answer given at t should be what ``history`` says of t, counting what was known at t. It may differ for two reasons
that are no fault: a row was in the log and not yet online, or came while the answer was given. What is online of an
entity is always the log up to some row, in the order of arrival; so an answer that is that of such a beginning of the
log, which ends within a grace of t, is late. Any other is a mismatch: the two do not compute the same.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from mainspring.declare.frame import Frame
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.features.logs.log import read_log
from mainspring.features.offline.history import history_of
from mainspring.features.online.sampled import Sample
from mainspring.features.view import SEQ, FeatureDef, Pick, View, arrow_type
from mainspring.lazy import lazy
from mainspring.ports.tables import Commit, Limits, TableStore, Where

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    pa, pq = lazy("pyarrow"), lazy("pyarrow.parquet")

__all__ = ["STATUS", "Answer", "Replayed", "replay", "same_value"]

STATUS = "(status)"
"""Stands for the status of a view where a feature's name is expected."""

_AT = "_replay_at"
_GRACE_US = 300_000_000
_AFTER_US = 30_000_000
_COMMITS = 256
_PREFIXES = 64
_CLOSE = 1e-9
_EPOCH = datetime(1970, 1, 1)

Answer = Mapping[str, object]
"""A view's answer: its features by name, and `STATUS`."""


class Replayed(msgspec.Struct, frozen=True):
    """One view's part of an answer, or one on-demand function's, computed again.

    Attributes:
        view: the view's name, or the function's.
        keys: the entity keys.
        at_us: the moment of the question, UTC microseconds.
        verdict: ``same``; ``late`` when a row that came about then explains it; ``mismatch``.
        features: all features of the answer.
        differing: those of them that differ, and `STATUS` when that does.
        online: what was answered.
        offline: what is computed offline.
        kind: of what was asked for: a feature view, or an on-demand function.
    """

    view: str
    keys: Mapping[str, object]
    at_us: int
    verdict: Literal["same", "late", "mismatch"]
    features: tuple[str, ...]
    differing: tuple[str, ...] = ()
    online: Answer | None = None
    offline: Answer | None = None
    kind: Literal["feature_view", "on_demand"] = "feature_view"


def replay(tables: TableStore, samples: Sequence[Sample], *, grace_us: int = _GRACE_US) -> list[Replayed]:
    """Compute answers again, view by view.

    Args:
        tables: where the views' logs are.
        samples: the answers; those whose keys no column can hold are passed over.
        grace_us: how long before the question a row may have come that was not yet online.

    Raises:
        StoreError: as the table store raises.
    """
    asked: dict[tuple[View, tuple[FeatureDef, ...]], list[tuple[Sample, Answer]]] = {}
    for alike in _by_plan(samples):
        start = 0
        for pick in alike[0].picks:
            names, stop = [feature.name for feature in pick.features], start + len(pick.features)
            asked.setdefault((pick.view, pick.features), []).extend(
                (one, dict(zip(names, one.values[start:stop], strict=True)) | {STATUS: one.statuses[pick.view.name]})
                for one in alike
            )
            start = stop
    found: list[Replayed] = []
    for (view, features), answers in asked.items():
        found += _of_view(tables, view, features, answers, grace_us)
    return found


def _by_plan(samples: Iterable[Sample]) -> Iterable[list[Sample]]:
    """Those that were asked for together, told apart by identity: to hash a view costs more than to compare a row."""
    found: dict[int, list[Sample]] = {}
    for sample in samples:
        found.setdefault(id(sample.picks), []).append(sample)
    return found.values()


def _of_view(
    tables: TableStore,
    view: View,
    features: tuple[FeatureDef, ...],
    answers: Sequence[tuple[Sample, Answer]],
    grace_us: int,
) -> Iterator[Replayed]:
    kept = answers
    spine = _spine(view, [sample for sample, _ in kept])
    if spine is None:  # some keys are none of their type
        kept = [(sample, told) for sample, told in answers if _spine(view, [sample]) is not None]
        spine = _spine(view, [sample for sample, _ in kept])
    if spine is None or tables.version(view.log) is None:
        return
    names = tuple(feature.name for feature in features)
    expected = _answers(tables, view, features, spine, as_known=True)
    for (sample, told), wanted in zip(kept, expected, strict=True):
        differing = _differing(features, told, wanted)
        keys = {name: sample.keys.get(name) for name in view.key_names}
        if not differing:
            yield Replayed(view.name, keys, sample.at_us, "same", names)
            continue
        late = _is_late(tables, view, features, sample, told, grace_us)
        verdict: Literal["late", "mismatch"] = "late" if late else "mismatch"
        yield Replayed(view.name, keys, sample.at_us, verdict, names, differing, told, wanted)


def _spine(view: View, samples: Sequence[Sample]) -> Frame | None:
    """Keys and moments; None where a key is none of its type."""
    try:
        columns = {
            key.name: pa.array([_key(sample.keys.get(key.name), key) for sample in samples], arrow_type(key.type))
            for key in view.keys
        }
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError, OverflowError):
        return None
    moments = pa.array([sample.at_us for sample in samples], pa.int64()).cast(pa.timestamp("us", "UTC"))
    return Frame(pa.table({**columns, _AT: moments}))


def _key(value: object, key: FieldSpec) -> object:
    return value if not isinstance(value, int) or key.type.kind is not Kind.TIMESTAMP else _moment(value)


def _moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _answers(
    tables: TableStore, view: View, features: tuple[FeatureDef, ...], spine: Frame, *, as_known: bool
) -> list[Answer]:
    found = history_of(tables, [Pick(view, features)], spine, _AT, as_known, "full", True, {}).arrow()
    columns = {feature.name: found.column(f"{view.name}__{feature.name}").to_pylist() for feature in features}
    columns[STATUS] = found.column(f"{view.name}__status").to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _differing(features: Iterable[FeatureDef], online: Answer, offline: Answer) -> tuple[str, ...]:
    wrong = [f.name for f in features if not same_value(online[f.name], offline[f.name], f.type)]
    return tuple(wrong + ([STATUS] if online[STATUS] != offline[STATUS] else []))


def same_value(online: object, offline: object, type_: ColumnType) -> bool:
    """Whether two values are one: exact, but for the last digits of floating-point sums in another order."""
    kind = type_.kind
    if online is None or offline is None:
        return online is offline
    if kind is Kind.LIST:
        mine, theirs = cast("Sequence[object]", online), cast("Sequence[object]", offline)
        alike = len(mine) == len(theirs)
        return alike and all(map(same_value, mine, theirs, [type_.element] * len(mine)))
    if kind is Kind.FLOAT:
        a, b = float(cast(float, online)), float(cast(float, offline))
        return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=_CLOSE, abs_tol=_CLOSE)
    if kind is Kind.VECTOR:
        return [*cast("Sequence[float]", online)] == [*cast("Sequence[float]", offline)]
    try:
        return _PLAIN.get(kind, _as_is)(online) == _PLAIN.get(kind, _as_is)(offline)
    except (TypeError, ValueError, InvalidOperation):
        return False


def _as_is(value: Any) -> object:
    return value


def _micros(value: Any) -> object:
    return (value.replace(tzinfo=None) - _EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value


def _days(value: Any) -> object:
    return value.toordinal() if isinstance(value, date) else value


_PLAIN: Mapping[Kind, Callable[[Any], object]] = {
    Kind.TIMESTAMP: _micros,
    Kind.DATE: _days,
    Kind.DECIMAL: lambda value: Decimal(str(value)),
    Kind.BOOLEAN: bool,
}


# -- what late rows explain -------------------------------------------------------------------------------------------


def _is_late(
    tables: TableStore,
    view: View,
    features: tuple[FeatureDef, ...],
    sample: Sample,
    told: Answer,
    grace_us: int,
) -> bool:
    """Whether the answer is that of the log up to some row that came within the grace."""
    spine = _spine(view, [sample])
    where = _where(view, spine)
    if spine is None or where is None:
        return False
    first, last = _versions(tables, view, sample.at_us, grace_us)
    rows = read_log(tables, view.log, last, where=where).sort_by(SEQ)
    start = 0 if first is None else len(read_log(tables, view.log, first, columns=[SEQ], where=where))
    with tempfile.TemporaryDirectory() as folder:
        for count in list(range(start, len(rows) + 1))[-_PREFIXES:]:
            path = os.path.join(folder, f"{count}.parquet")
            pq.write_table(rows.slice(0, count), path)
            (answer,) = _answers(
                cast(TableStore, _Beginning(path, tables.limits)), view, features, spine, as_known=False
            )
            if not _differing(features, told, answer):
                return True
    return False


def _where(view: View, spine: Frame | None) -> list[Where] | None:
    """The condition on the rows of an entity; None where a key is null, of which there is no row."""
    if spine is None:
        return None
    found: list[Where] = [(name, "==", spine.arrow().column(name)[0].as_py()) for name in view.key_names]
    return None if any(value is None for _, _, value in found) else found


def _versions(tables: TableStore, view: View, at_us: int, grace_us: int) -> tuple[int | None, int | None]:
    """The version of a log that surely was online, None where there was none, and the last that may have been."""
    last = None
    for commit in tables.commits(view.log, _COMMITS):
        if commit.at_us > at_us + _AFTER_US:
            continue
        last = commit.version if last is None else last
        if commit.at_us <= at_us - grace_us:
            return (commit.version if tables.has(view.log, commit.version) else None), last
    return None, last


class _Beginning:
    """A table store of one file, with the limits of another."""

    def __init__(self, path: str, limits: Limits) -> None:
        self._path = path
        self.limits = limits

    def files(self, table: str, version: int | None = None) -> tuple[str, ...]:
        """The file."""
        return (self._path,)

    def commits(self, table: str, limit: int | None = None) -> tuple[Commit, ...]:
        """None: nothing is known of its order."""
        return ()
