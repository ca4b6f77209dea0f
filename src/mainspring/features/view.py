"""A feature view as values that any process can hold: what its log keeps and how each feature is answered.

Offline (`mainspring.features.offline`) and online (`mainspring.features.online`) read the same `View`; nothing of the
user's app is needed to answer with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from mainspring.declare.aggregate import Aggregate, Function
from mainspring.declare.checking import checks_fit
from mainspring.declare.data import Feature, FeatureView, FeatureViewSpec, Source, SourceSpec, did_you_mean
from mainspring.declare.declaration import name_of, origin_of, spec_of
from mainspring.declare.model import Input
from mainspring.declare.quality import Check
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.errors import DeclarationError
from mainspring.features.quality.schemas import located
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = [
    "ASSUMED",
    "BATCH",
    "DEFINITION",
    "DELETED",
    "EVENT",
    "HASH",
    "INGEST",
    "RETRACTS",
    "SEQ",
    "SYSTEM",
    "VALID_TO",
    "VERSION_ID",
    "FeatureDef",
    "Pick",
    "View",
    "aggregates_log",
    "arrow_type",
    "checks_of",
    "log_schema",
    "pick",
    "picks_of",
    "source_digest",
    "stored_field",
    "view_of",
]

EVENT = "_event_time"
"""When it happened: timestamp[us, UTC], never null."""
INGEST = "_ingest_time"
"""When it became known: timestamp[us, UTC], never null."""
SEQ = "_seq"
"""Order of arrival: int64, ``counter << 15 | writer``, unique in a log and growing with its commits."""
DELETED = "_deleted"
"""Whether the row is a tombstone: bool."""
ASSUMED = "_assumed"
"""Whether the ingest time is not known and the event time was taken: bool."""
HASH = "_hash"
"""blake2b-32 of the key bytes: int32, the same in every version of every engine."""
DEFINITION = "_def"
"""The version of the view's definition that wrote the row: string."""
BATCH = "_batch"
"""The commit that the row came with: string."""
RETRACTS = "_retracts"
"""The `_seq` of the row that this one takes away, because a source's files hold it no more: int64, null in all other
rows. Such a row is deleted itself, repeats the other's columns, and takes it away from its own ingest time on."""
VALID_TO = "_valid_to"
"""When the row stops being valid: timestamp[us, UTC], null is open; only where the source declares ``valid_to``."""
VERSION_ID = "_id"
"""The event that the row is a version of, within its keys; only where the source declares ``id``."""
SYSTEM = (EVENT, INGEST, SEQ, DELETED, ASSUMED, HASH, DEFINITION, BATCH, RETRACTS, VALID_TO, VERSION_ID)
"""The names that no column of the user's may have."""

_LAYOUT = 2
"""Of a view's log: with `RETRACTS` since 2; a log of an older layout is made anew from its source's."""

_COMPARED = frozenset({Function.LOWEST, Function.HIGHEST, Function.DISTINCT})


class FeatureDef(msgspec.Struct, frozen=True):
    """One feature.

    Attributes:
        name: the feature's name, unique in its view.
        aggregate: how it is answered from the log's rows; a feature of a decorated view is ``last`` of its column.
        type: the type of the answer.
    """

    name: str
    aggregate: Aggregate
    type: ColumnType

    @property
    def column(self) -> str | None:
        """The column of the log that is read; None counts rows."""
        return self.aggregate.column

    @property
    def window_us(self) -> int | None:
        """The window (t - w, t] in microseconds; None for ``last``."""
        return self.aggregate.window_us


class View(msgspec.Struct, frozen=True):
    """A feature view.

    Attributes:
        id: the catalog's number of the view, never reused; 0 where only offline answers are wanted.
        name: the view's name.
        version: digest of the whole definition, 32 hex digits.
        keys: the join keys in declared order, never null in the log.
        ttl_us: how long the newest row answers ``last``; None is for ever. Windows do not know it.
        features: the features in declared order.
        columns: the value columns of the log, in order: what aggregates read, save keys.
        sources: the names of the sources (or views) it is made from.
        time: the event time's column in the first source, which a decorated function keeps.
        log: the name of its log in the table store; its last part is a digest of what decides the log's rows.
        has_valid_to: whether the log has `VALID_TO`.
        version_id: the type of `VERSION_ID`, or None when the source declares no ``id``.
        online: whether it is materialised for serving.
        every_us: how often it is published, or None.
        rows: ``each`` when increments suffice, ``whole`` when all is recomputed.
        decorated: whether a function makes its rows.
        checks: what its rows must satisfy; those that set rows aside always, the others where rows are brought in.
    """

    id: int
    name: str
    version: str
    keys: tuple[FieldSpec, ...]
    ttl_us: int | None
    features: tuple[FeatureDef, ...]
    columns: tuple[FieldSpec, ...]
    sources: tuple[str, ...]
    time: str
    log: str
    has_valid_to: bool = False
    version_id: ColumnType | None = None
    online: bool = True
    every_us: int | None = None
    rows: Literal["each", "whole"] = "each"
    decorated: bool = False
    checks: tuple[Check, ...] = ()

    @property
    def quarantine(self) -> str:
        """The table of rows that were set aside."""
        return f"quarantine/{self.log}"

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the join keys, in order."""
        return tuple(key.name for key in self.keys)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features, in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def last(self) -> tuple[FeatureDef, ...]:
        """The features answered by the newest row."""
        return tuple(feature for feature in self.features if feature.window_us is None)

    @property
    def windowed(self) -> tuple[FeatureDef, ...]:
        """The features answered over a window."""
        return tuple(feature for feature in self.features if feature.window_us is not None)

    @property
    def window_us(self) -> int:
        """The longest window in microseconds; 0 when there is none."""
        return max((feature.window_us or 0 for feature in self.features), default=0)

    def column(self, name: str) -> FieldSpec:
        """The key or value column of that name.

        Raises:
            KeyError: the log has no such column.
        """
        for field in (*self.keys, *self.columns):
            if field.name == name:
                return field
        raise KeyError(name)

    def feature(self, name: str) -> FeatureDef:
        """The feature of that name.

        Raises:
            DeclarationError: MS-2101, the view has no such feature.
        """
        for feature in self.features:
            if feature.name == name:
                return feature
        raise DeclarationError(
            f"feature view {self.name!r} has no feature {name!r}",
            code="MS-2101",
            fix=did_you_mean(name, self.feature_names),
        )


class Pick(msgspec.Struct, frozen=True):
    """Some features of a view, in the order they were asked for."""

    view: View
    features: tuple[FeatureDef, ...]


def pick(view: View, *names: str) -> Pick:
    """Features of a view by name; all of them when none is named.

    Raises:
        DeclarationError: MS-2101.
    """
    return Pick(view, tuple(view.feature(name) for name in names) if names else view.features)


def picks_of(inputs: Sequence[Input], views: Mapping[str, View]) -> tuple[Pick, ...]:
    """The features that a model's inputs stand for, one pick a mention; nothing else among them is read.

    Args:
        inputs: feature views, single features and columns, as `App.model` takes them.
        views: the views by name.
    """
    picks = []
    for item in inputs:
        if isinstance(item, Feature):
            picks.append(pick(views[name_of(item.view)], item.name))
        elif isinstance(item, FeatureView):
            picks.append(pick(views[name_of(item)]))
    return tuple(picks)


def view_of(
    declaration: FeatureView, id: int = 0, *, fields: Sequence[FieldSpec] = (), code: str = "", upstream: str = ""
) -> View:
    """The runtime value of a declared feature view.

    Args:
        declaration: what the app declares.
        id: the catalog's number of the view.
        fields: keys and features with their types, as the plan's node has them; only a decorated view without
            ``returns=`` needs them.
        code: digest of a decorated view's function and all it can reach.
        upstream: digest of the definitions of the views it is made from, if any.

    Raises:
        DeclarationError: MS-2102, a column's name is one of the log's own; MS-2103, the features of a decorated view
            are not known; MS-2104, ``lowest``, ``highest`` or ``distinct`` of vectors; MS-2105, a key is a float
            or a vector.
    """
    spec = spec_of(declaration)
    name = name_of(declaration)
    first = _first_source(declaration)
    source = spec_of(first)
    keys = tuple(FieldSpec(key, _key_type(spec, fields, key)) for key in spec.keys)
    features, columns = _aggregates(spec) if spec.function is None else _returned(declaration, source.time, fields)
    columns = tuple(field for field in columns if field.name not in spec.keys)
    _names_are_free(declaration, (*keys, *columns))
    _have_order(declaration, features, {field.name: field.type for field in (*keys, *columns)})
    _can_join(declaration, keys)
    plain = spec.function is None
    identified = source.field(source.id) if plain and source.id is not None else None
    has_valid_to = plain and source.valid_to is not None
    sources = tuple(name_of(item) for item in spec.sources)
    read = [source_digest(spec_of(item)) for item in spec.sources if isinstance(item, Source)]
    setting_aside = tuple(check for check in checks_of(spec, (*keys, *columns)) if check.on_fail == "quarantine")
    content = _content(sources, read, keys, columns, spec.rows if not plain else "each", code, upstream, setting_aside)
    log = _log_of(name, content)
    return View(
        id=id,
        name=name,
        version=_digest([name, content, features, spec.ttl_us, spec.online]),
        keys=keys,
        ttl_us=spec.ttl_us,
        features=features,
        columns=columns,
        sources=sources,
        time=source.time,
        log=log,
        has_valid_to=has_valid_to,
        version_id=None if identified is None else identified.type,
        online=spec.online,
        every_us=spec.every_us,
        rows=spec.rows,
        decorated=not plain,
        checks=setting_aside,
    )


def aggregates_log(view: View, source: str, checks: Sequence[Check]) -> str:
    """The log that a view of declared aggregates would have over a source of that digest, with these checks."""
    setting_aside = tuple(check for check in checks if check.on_fail == "quarantine")
    content = _content(view.sources, [source], view.keys, view.columns, "each", "", "", setting_aside)
    return _log_of(view.name, content)


def _content(
    sources: Sequence[str],
    read: Sequence[str],
    keys: Sequence[FieldSpec],
    columns: Sequence[FieldSpec],
    rows: str,
    code: str,
    upstream: str,
    setting_aside: Sequence[Check],
) -> list[object]:
    """What decides the rows of a view's log."""
    content: list[object] = [_LAYOUT, tuple(sources), list(read), tuple(keys), tuple(columns), rows, code, upstream]
    return [*content, [repr(check) for check in setting_aside]] if setting_aside else content


def _log_of(name: str, content: object) -> str:
    return f"feature_view/{name}/{_digest(content)[:16]}"


def checks_of(spec: FeatureViewSpec, fields: Sequence[FieldSpec]) -> tuple[Check, ...]:
    """All checks of a view, as values that any process can hold.

    Args:
        spec: what was declared.
        fields: the keys and columns of its log.

    Raises:
        DeclarationError: MS-1007, MS-1062, as `checks_fit`: only now are the columns of its function known.
    """
    found = checks_fit(spec.checks, {field.name: field for field in fields}, "the feature view", of_view=True)
    return tuple(located(check) for check in found)


def source_digest(spec: SourceSpec) -> str:
    """Digest of all that decides what a source's rows mean: columns, types, rules, roles and zone; 32 hex digits."""
    rules = [
        [field.rules.ge, field.rules.le, field.rules.one_of, field.rules.matches, field.rules.unique]
        for field in spec.fields
    ]
    roles = [spec.time, spec.ingested, spec.valid_to, spec.id, spec.deleted, spec.zone]
    return _digest([spec.fields, rules, roles])


def _first_source(declaration: FeatureView) -> Source:
    upstream: Source | FeatureView = declaration
    while isinstance(upstream, FeatureView):
        upstream = spec_of(upstream).sources[0]
    return upstream


def _key_type(spec: FeatureViewSpec, fields: Sequence[FieldSpec], key: str) -> ColumnType:
    sources = [spec_of(item).fields for item in spec.sources if isinstance(item, Source)]
    upstream = [spec_of(item).returns for item in spec.sources if isinstance(item, FeatureView)]
    for field in (*fields, *(field for columns in (*sources, *upstream) for field in columns)):
        if field.name == key:
            kind = field.type
            return ColumnType(kind.kind, False, kind.precision, kind.scale, kind.length)
    return ColumnType(Kind.STRING)


def _aggregates(spec: FeatureViewSpec) -> tuple[tuple[FeatureDef, ...], tuple[FieldSpec, ...]]:
    (source,) = spec.sources
    assert isinstance(source, Source)
    known = {field.name: field for field in spec_of(source).fields}
    features, columns = [], {}
    for name, aggregate in spec.features:
        field = None if aggregate.column is None else known[aggregate.column]
        features.append(FeatureDef(name, aggregate, aggregate.result_type(None if field is None else field.type)))
        if field is not None:
            columns[field.name] = FieldSpec(field.name, field.type)
    return tuple(features), tuple(columns.values())


def _returned(
    declaration: FeatureView, time: str, fields: Sequence[FieldSpec]
) -> tuple[tuple[FeatureDef, ...], tuple[FieldSpec, ...]]:
    spec = spec_of(declaration)
    returned = [field for field in (fields or spec.returns) if field.name not in (*spec.keys, time)]
    if not returned:
        raise DeclarationError(
            f"the features of view {name_of(declaration)!r} are not known",
            code="MS-2103",
            why="its function returns no column besides keys and time, or was not tried yet",
            origin=str(origin_of(declaration)),
            fix="declare them: @app.features(..., returns=Record)",
        )
    columns = tuple(FieldSpec(field.name, _nullable(field.type)) for field in returned)
    features = tuple(
        FeatureDef(field.name, Aggregate(Function.LAST, field.name, None), field.type) for field in columns
    )
    return features, columns


def _nullable(kind: ColumnType) -> ColumnType:
    return ColumnType(kind.kind, True, kind.precision, kind.scale, kind.length)


def _names_are_free(declaration: FeatureView, fields: Sequence[FieldSpec]) -> None:
    for field in fields:
        if field.name in SYSTEM or field.name == "_bucket":
            raise DeclarationError(
                f"column {field.name!r} has a name that the log of a feature view uses itself",
                code="MS-2102",
                origin=str(origin_of(declaration)),
                fix="rename the column",
            )


def _have_order(declaration: FeatureView, features: Sequence[FeatureDef], types: Mapping[str, ColumnType]) -> None:
    for feature in features:
        if feature.aggregate.function in _COMPARED and types[str(feature.column)].kind is Kind.VECTOR:
            raise DeclarationError(
                f"feature {feature.name!r} is {feature.aggregate} of a vector",
                code="MS-2104",
                why="vectors have no order, and are hardly ever equal",
                origin=str(origin_of(declaration)),
                fix="use last, first or count",
            )


def _can_join(declaration: FeatureView, keys: Sequence[FieldSpec]) -> None:
    for key in keys:
        if key.type.kind in (Kind.FLOAT, Kind.VECTOR):
            raise DeclarationError(
                f"entity key {key.name!r} is {key.type}",
                code="MS-2105",
                why="numbers that are nearly equal would be different entities",
                origin=str(origin_of(declaration)),
                fix="use text, whole numbers or decimals as keys",
            )


def _digest(content: object) -> str:
    return hashlib.blake2b(repr(_plain(content)).encode(), digest_size=16).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, FieldSpec):
        return [value.name, str(value.type)]
    if isinstance(value, FeatureDef):
        return [value.name, str(value.aggregate), str(value.type)]
    return value


def arrow_type(kind: ColumnType) -> pa.DataType:
    """The Arrow type of a column: the same in files, logs, spines and answers."""
    if kind.kind is Kind.DECIMAL:
        return pa.decimal128(kind.precision, kind.scale)
    if kind.kind is Kind.VECTOR:
        return pa.list_(pa.float32(), kind.length)
    if kind.kind is Kind.LIST:
        return pa.list_(arrow_type(kind.element))
    simple: Mapping[Kind, pa.DataType] = {
        Kind.STRING: pa.string(),
        Kind.INTEGER: pa.int64(),
        Kind.FLOAT: pa.float64(),
        Kind.BOOLEAN: pa.bool_(),
        Kind.TIMESTAMP: pa.timestamp("us", "UTC"),
        Kind.DATE: pa.date32(),
        Kind.BYTES: pa.binary(),
    }
    return simple[kind.kind]


def log_schema(view: View) -> pa.Schema:
    """The Arrow schema of a view's log: keys, value columns, then the system columns.

    A vector is a plain list there, because Delta tables have no lists of fixed size.
    """
    moment = pa.timestamp("us", "UTC")
    system = [
        pa.field(EVENT, moment, nullable=False),
        pa.field(INGEST, moment, nullable=False),
        pa.field(SEQ, pa.int64(), nullable=False),
        pa.field(DELETED, pa.bool_(), nullable=False),
        pa.field(ASSUMED, pa.bool_(), nullable=False),
        pa.field(HASH, pa.int32(), nullable=False),
        pa.field(DEFINITION, pa.string(), nullable=False),
        pa.field(BATCH, pa.string(), nullable=False),
        pa.field(RETRACTS, pa.int64()),
    ]
    if view.has_valid_to:
        system.append(pa.field(VALID_TO, moment))
    if view.version_id is not None:
        system.append(pa.field(VERSION_ID, arrow_type(view.version_id)))
    keys = [pa.field(key.name, arrow_type(key.type), nullable=False) for key in view.keys]
    return pa.schema([*keys, *(stored_field(field) for field in view.columns), *system])


def stored_field(field: FieldSpec) -> pa.Field:
    """A value column as a log stores it: nullable, because a tombstone has no values."""
    kind = pa.list_(pa.float32()) if field.type.kind is Kind.VECTOR else arrow_type(field.type)
    return pa.field(field.name, kind)
