"""Entities, sources, columns, feature views and features."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from mainspring.declare.aggregate import Aggregate
from mainspring.declare.declaration import Declaration, DeclaredKind
from mainspring.declare.origin import Origin, here
from mainspring.declare.quality import Check
from mainspring.declare.record import FieldSpec, Record
from mainspring.errors import DeclarationError

__all__ = [
    "Column",
    "Entity",
    "EntitySpec",
    "Feature",
    "FeatureView",
    "FeatureViewSpec",
    "Source",
    "SourceSpec",
    "did_you_mean",
]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the nearest known one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    if not names:
        return "there is none yet: mainspring show lists what there is"
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


class EntitySpec(msgspec.Struct, frozen=True):
    """The column that identifies an entity."""

    key: str


class Entity(Declaration[EntitySpec]):
    """A thing that features describe, identified by a key column: ``Entity("origin")``."""

    __slots__ = ()

    def __init__(self, key: str) -> None:
        super().__init__(DeclaredKind.ENTITY, EntitySpec(key), here(), key)


class SourceSpec(msgspec.Struct, frozen=True):
    """A table that the app reads.

    Attributes:
        record: the record class; fields: its columns in order.
        time: the column with a row's event time.
        ingested: the column with the moment a row became known, or None.
        valid_to: the column with the moment a row stops being valid, or None.
        id: the column that identifies an event over its corrections, or None.
        deleted: a boolean column that marks a deletion, or None.
        zone: the IANA time zone of naive times, or None when times must carry a zone.
        every_us: how often a batch source is read, in microseconds, or None.
        checks: what its rows must satisfy before they are committed.
    """

    record: type[Record]
    fields: tuple[FieldSpec, ...]
    time: str
    ingested: str | None
    valid_to: str | None
    id: str | None
    deleted: str | None
    zone: str | None
    every_us: int | None
    checks: tuple[Check, ...] = ()

    def field(self, name: str) -> FieldSpec | None:
        """The column of that name, or None."""
        return next((field for field in self.fields if field.name == name), None)


class Column(msgspec.Struct, frozen=True, eq=False):
    """A column of a source, as ``flights.distance`` or ``flights["distance"]``."""

    source: Source
    field: FieldSpec
    origin: Origin

    @property
    def name(self) -> str:
        """The column's name."""
        return self.field.name


class Source(Declaration[SourceSpec]):
    """A declared table; its attributes are its columns."""

    __slots__ = ()

    def __init__(self, spec: SourceSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.SOURCE, spec, origin, name)

    def __getattr__(self, name: str) -> Column:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Column:
        field = self._spec.field(name)
        if field is None:
            raise DeclarationError(
                f"{self._spec.record.__name__} has no column {name!r}",
                code="MS-1011",
                origin=str(here()),
                fix=did_you_mean(name, (field.name for field in self._spec.fields)),
            )
        return Column(self, field, here())


class FeatureViewSpec(msgspec.Struct, frozen=True):
    """A group of features of one entity.

    Attributes:
        sources: what it is computed from; one for declared aggregates, one or more for a function.
        entities: whose features these are; the join keys are the entities' keys, in this order.
        ttl_us: how long the newest row answers, in microseconds; None is for ever.
        every_us: how often the view is published, in microseconds, or None.
        online: whether it is materialised for serving.
        rows: ``each`` when f(A + B) = f(A) + f(B), so that increments suffice; ``whole`` when all is recomputed.
        features: declared aggregates by feature name; empty for a function.
        function: takes one `polars.LazyFrame` a source (or nothing) and returns a LazyFrame, or DuckDB SQL over
            the sources' names; None for declared aggregates.
        returns: the columns that the function returns, when declared.
        checks: what its rows must satisfy before they are committed.
    """

    sources: tuple[Source | FeatureView, ...]
    entities: tuple[Entity, ...]
    ttl_us: int | None
    every_us: int | None
    online: bool
    rows: Literal["each", "whole"]
    features: tuple[tuple[str, Aggregate], ...]
    function: Callable[..., object] | None
    returns: tuple[FieldSpec, ...]
    checks: tuple[Check, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The join keys, in order."""
        return tuple(entity._spec.key for entity in self.entities)


class Feature(msgspec.Struct, frozen=True, eq=False):
    """One feature of a view, as ``congestion.delay_1h``."""

    view: FeatureView
    name: str
    origin: Origin


class FeatureView(Declaration[FeatureViewSpec]):
    """A declared feature view; its attributes are its features."""

    __slots__ = ()

    def __init__(self, spec: FeatureViewSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.FEATURE_VIEW, spec, origin, name)

    def __getattr__(self, name: str) -> Feature:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Feature:
        known = [feature for feature, _ in self._spec.features] or [field.name for field in self._spec.returns]
        if known and name not in known:
            raise DeclarationError(
                f"the feature view has no feature {name!r}",
                code="MS-1012",
                origin=str(here()),
                fix=did_you_mean(name, known),
            )
        return Feature(self, name, here())
