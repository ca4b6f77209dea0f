"""What is checked at the moment something is declared, with the line of the user's file."""

from __future__ import annotations

import inspect
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from mainspring.declare.aggregate import Aggregate
from mainspring.declare.data import Column, Entity, Feature, FeatureView, Source, did_you_mean
from mainspring.declare.declaration import Declaration, spec_of
from mainspring.declare.model import Input, ModelDeclaration
from mainspring.declare.on_demand import OnDemand, OnDemandFeature
from mainspring.declare.options import are, is_a, not_a
from mainspring.declare.origin import Origin, here, of_function
from mainspring.declare.record import FieldSpec, Kind, Record
from mainspring.errors import DeclarationError

__all__ = [
    "CLASSIFICATION",
    "METRICS",
    "aggregates_fit",
    "columns_exist",
    "cron_fits",
    "default_name",
    "label_fits",
    "rule_fits",
    "segments_fit",
    "share",
    "takes_inputs",
    "time_zone",
]

METRICS: Mapping[str, bool] = {
    "roc_auc": True,
    "log_loss": False,
    "brier": False,
    "accuracy": True,
    "rmse": False,
    "mae": False,
    "r2": True,
}
"""The metrics a model may be judged by; true when greater is better."""

CLASSIFICATION = frozenset({"roc_auc", "log_loss", "brier", "accuracy"})
"""Those of them for a boolean label; the others are for a number."""
_QUANTITIES = frozenset({Kind.BOOLEAN, Kind.INTEGER, Kind.FLOAT, Kind.DECIMAL})
_TELLING = frozenset({Kind.STRING, Kind.BOOLEAN, Kind.INTEGER})
_TIMES = frozenset({"time", "ingested", "valid_to"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def columns_exist(record: type[Record], fields: Sequence[FieldSpec], **roles: str | None) -> None:
    """Every role of a source is a column of the right type (MS-1007, MS-1013)."""
    known = {field.name: field for field in fields}
    for role, column in roles.items():
        if column is None:
            continue
        if column not in known:
            raise DeclarationError(
                f"{role}={column!r}: {record.__name__} has no such column",
                code="MS-1007",
                origin=str(here()),
                fix=did_you_mean(column, known),
            )
        wanted = Kind.TIMESTAMP if role in _TIMES else Kind.BOOLEAN if role == "deleted" else None
        if wanted is not None and known[column].type.kind is not wanted:
            raise DeclarationError(
                f"{role}={column!r} is {known[column].type}, not a {wanted.value}",
                code="MS-1013",
                origin=str(here()),
                fix=f"declare {column}: {'datetime' if wanted is Kind.TIMESTAMP else 'bool'} in {record.__name__}",
            )


def time_zone(zone: str | None) -> None:
    """The zone is one of the IANA data base (MS-1014)."""
    if zone is None:
        return
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise DeclarationError(
            f"time zone {zone!r} is unknown",
            code="MS-1014",
            why=str(error),
            origin=str(here()),
            fix='use an IANA name: "UTC", "America/New_York"',
        ) from error


def aggregates_fit(
    sources: Sequence[Source | FeatureView],
    entities: Sequence[Entity],
    features: Mapping[str, Aggregate],
    origin: Origin,
) -> None:
    """Keys and columns exist and have the right type (MS-1007, MS-1008, MS-1015, MS-1016)."""
    if not sources or not entities:
        raise DeclarationError(
            "a feature view needs a source and an entity",
            code="MS-1015",
            why="no source was given" if not sources else "entity= is missing",
            origin=str(origin),
            fix="app.features(flights, entity=airport, ...)",
        )
    are("what app.features takes", sources, (Source, FeatureView), "app.features(SOURCE, entity=..., ...)")
    for entity in entities:
        is_a("entity", entity, Entity, 'airport = Entity("origin"), then entity=airport')
    if not features:
        return
    source = sources[0]
    if len(sources) > 1 or not isinstance(source, Source):
        raise DeclarationError(
            "declared aggregates read one source",
            code="MS-1015",
            why=f"{len(sources)} were given" if len(sources) > 1 else "a feature view was given",
            origin=str(origin),
            fix="use the decorator: @app.features(a, b, entity=...)",
        )
    spec = spec_of(source)
    columns = [field.name for field in spec.fields]
    for entity in entities:
        key = spec_of(entity).key
        if key not in columns:
            raise DeclarationError(
                f"entity key {key!r} is no column of {spec.record.__name__}",
                code="MS-1016",
                why="a feature view joins on its entity's key",
                origin=str(origin),
                fix=did_you_mean(key, columns),
            )
    for name, aggregate in features.items():
        _name_is_free(name, entities, spec.time, origin)
        _aggregate_fits(name, aggregate, spec.record, {field.name: field for field in spec.fields}, origin)


def _name_is_free(name: str, entities: Sequence[Entity], time: str, origin: Origin) -> None:
    if name in {*(spec_of(entity).key for entity in entities), time} or name.startswith("_"):
        raise DeclarationError(
            f"feature {name!r} has a name that is taken",
            code="MS-1037",
            why="names that begin with _ are the log's own"
            if name.startswith("_")
            else "it is the key's or the time's",
            origin=str(origin),
            fix="give it another name",
        )


def _aggregate_fits(
    name: str, aggregate: object, record: type[Record], columns: Mapping[str, FieldSpec], origin: Origin
) -> None:
    if not isinstance(aggregate, Aggregate):
        raise DeclarationError(
            f"feature {name!r} is not an aggregate but {aggregate!r}",
            code="MS-1028",
            origin=str(origin),
            fix=f'{name}=last("column") or avg("column", "1h")',
        )
    if aggregate.column is None:
        return
    if aggregate.column not in columns:
        raise DeclarationError(
            f"feature {name!r} reads column {aggregate.column!r}, which {record.__name__} does not have",
            code="MS-1007",
            origin=str(origin),
            fix=did_you_mean(aggregate.column, columns),
        )
    aggregate.result_type(columns[aggregate.column].type)


def label_fits(
    inputs: Sequence[Input],
    label: Column,
    known_at: Column | None,
    metric: str,
    slices: Sequence[Column],
) -> None:
    """Inputs, label and metric go together (MS-1013, MS-1017 to MS-1019, MS-1024, MS-1025, MS-1033)."""
    origin = str(here())
    are(
        "inputs",
        inputs,
        (Column, Feature, FeatureView, OnDemand, OnDemandFeature),
        "inputs=[VIEW, VIEW.feature, SOURCE.column]",
    )
    are("slices", slices, Column, "slices=[SOURCE.column]")
    if known_at is not None:
        is_a("known_at", known_at, Column, "known_at=SOURCE.column")
    if metric not in METRICS:
        raise DeclarationError(
            f"metric {metric!r} is unknown", code="MS-1017", origin=origin, fix=did_you_mean(metric, METRICS)
        )
    if not isinstance(label, Column) or not inputs:
        raise DeclarationError(
            "a model needs inputs, and a label that is a column of a source",
            code="MS-1018",
            origin=origin,
            fix="@app.model(inputs=[conditions], label=flights.late)",
        )
    boolean = label.field.type.kind is Kind.BOOLEAN
    if boolean is not (metric in CLASSIFICATION):
        raise DeclarationError(
            f"metric {metric!r} does not fit label {label.name!r}, which is {label.field.type}",
            code="MS-1019",
            origin=origin,
            fix=f"use one of {', '.join(name for name in METRICS if (name in CLASSIFICATION) is boolean)}"
            if label.field.type.kind in _QUANTITIES
            else "add a boolean column to the source, or a number",
        )
    if known_at is not None and known_at.field.type.kind is not Kind.TIMESTAMP:
        raise DeclarationError(
            f"known_at={known_at.name!r} is {known_at.field.type}, not a timestamp",
            code="MS-1013",
            origin=origin,
            fix="name the column with the moment when the label is known, a datetime",
        )
    for column in [*(item for item in inputs if isinstance(item, Column)), *slices, *([known_at] if known_at else [])]:
        if column.source is not label.source:
            raise DeclarationError(
                f"column {column.name!r} is of another source than the label",
                code="MS-1024",
                why="a model's own columns come with the row whose label it predicts",
                origin=origin,
                fix="make it a feature: app.features(source, entity=..., name=last(...))",
            )
    _inputs_are_known(inputs, label, known_at, origin)


def _inputs_are_known(inputs: Sequence[Input], label: Column, known_at: Column | None, origin: str) -> None:
    late = {label.name} | ({known_at.name} if known_at is not None else set())
    for item in inputs:
        if isinstance(item, Column) and item.name in late:
            raise DeclarationError(
                f"input {item.name!r} is known later than the model is used",
                code="MS-1025",
                why="it is the label, or tells when the label is known",
                origin=origin,
                fix="leave it out of inputs",
            )


def segments_fit(segments: Sequence[Column], model: ModelDeclaration) -> None:
    """Segments are columns of the rows that the model is asked about, of few values (MS-1024, MS-1033, MS-1041)."""
    are("segments", segments, Column, "segments=[SOURCE.column]")
    for column in segments:
        if column.source is not spec_of(model).spine:
            raise DeclarationError(
                f"column {column.name!r} is of another source than the label",
                code="MS-1024",
                why="rows are told apart by what came with them",
                origin=str(here()),
                fix="use a column of the label's source",
            )
        if column.field.type.kind not in _TELLING or column.name == spec_of(model).label.name:
            label = column.name == spec_of(model).label.name
            raise DeclarationError(
                f"rows cannot be told apart by {column.name!r}",
                code="MS-1041",
                why="it is the label, which no request carries"
                if label
                else f"it is {column.field.type}: nearly every row has a value of its own",
                origin=str(here()),
                fix="use a text, a truth or a whole number of the label's source",
            )


def takes_inputs(function: Callable[..., object], count: int, *, others: bool = True) -> None:
    """The function can be called with that many inputs, and without more where `others` is false (MS-1029)."""
    parameters = list(inspect.signature(function).parameters.values())
    kinds = [parameter.kind for parameter in parameters]
    variable = inspect.Parameter.VAR_POSITIONAL in kinds
    positional = sum(
        kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds
    )
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    open_ones = [item.name for item in parameters[count:] if item.default is item.empty and item.kind in plain]
    if open_ones and not others:
        raise DeclarationError(
            f"{function.__name__} takes {count + len(open_ones)} inputs, and {count} are declared",
            code="MS-1029",
            why=f"nothing would be given for {', '.join(open_ones)}",
            origin=str(of_function(function)),
            fix=f"give {open_ones[0]} a default",
        )
    if positional < count and not variable:
        raise DeclarationError(
            f"{function.__name__} takes {positional} inputs, and {count} are declared",
            code="MS-1029",
            origin=str(of_function(function)),
            fix="give it one parameter for each input",
        )


def rule_fits(rule: object) -> None:
    """A promotion rule can be called with two scores (MS-1029, MS-1033)."""
    if not callable(rule):
        raise not_a("when", rule, "function", "when=lambda new, live: new.roc_auc >= live.roc_auc")
    try:
        signature = inspect.signature(rule)
    except ValueError:
        return  # a function in C may not tell
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise DeclarationError(
            f"the rule of app.promote takes {len(signature.parameters)} arguments, and is given the scores of two",
            code="MS-1029",
            why=str(error),
            origin=str(here()),
            fix="write when=lambda new, live: new.roc_auc >= live.roc_auc",
        ) from error


def share(name: str, value: float, *, closed: bool = False) -> None:
    """The value is a share (MS-1030)."""
    number = isinstance(value, (int, float))
    if not number or not (0 <= value <= 1 if closed else 0 < value < 1):
        raise DeclarationError(
            f"{name}={value!r} is not a share",
            code="MS-1030",
            origin=str(here()),
            fix=f"{name} lies between 0 and 1",
        )


def cron_fits(cron: str) -> None:
    """The expression is a cron expression (MS-1026)."""
    try:
        CronSim(cron, _EPOCH)
    except CronSimError as error:
        raise DeclarationError(
            f"schedule {cron!r} is no cron expression",
            code="MS-1026",
            why=str(error),
            origin=str(here()),
            fix='five fields: minute hour day month weekday, as "0 3 * * *"',
        ) from error


def default_name(called: str | None, target: Declaration[object]) -> str | None:
    """The given name, or the target's when it has one already."""
    return called or target._name
