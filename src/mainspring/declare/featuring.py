"""The part of an app that is data: sources, and the features made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, overload

from mainspring.declare.aggregate import Aggregate
from mainspring.declare.check import aggregates_fit, columns_exist, time_zone
from mainspring.declare.checking import checks_fit, view_columns
from mainspring.declare.data import Entity, Feature, FeatureView, FeatureViewSpec, Source, SourceSpec
from mainspring.declare.declared import Declared
from mainspring.declare.duration import Duration, microseconds
from mainspring.declare.options import choice, flag, is_a, known_options, texts
from mainspring.declare.origin import here
from mainspring.declare.record import Record, fields_of
from mainspring.declare.vector_index import Nearness, VectorIndex, VectorIndexSpec

__all__ = ["Featuring"]


class Featuring(Declared):
    """What an app declares to have features."""

    def source(
        self,
        record: type[Record],
        *,
        time: str,
        ingested: str | None = None,
        valid_to: str | None = None,
        id: str | None = None,
        deleted: str | None = None,
        zone: str | None = None,
        every: Duration | None = None,
        checks: Sequence[object] = (),
        called: str | None = None,
    ) -> Source:
        """A table to read; where it is, is the profile's business (``[sources.NAME]`` of mainspring.toml).

        Args:
            record: the class that describes a row.
            time: the column with the event time.
            ingested: the column with the moment the row became known; otherwise its arrival.
            valid_to: the column with the moment the row stops being valid; null is open.
            id: the column that identifies an event over its corrections.
            deleted: a boolean column; true marks a deletion.
            zone: the IANA time zone of naive times; without it they are refused.
            every: how often a server reads the source again and brings its views up to date.
            checks: what its rows must satisfy before they are committed: `not_null`, `between`, `references`, ..., or
                pandera schemas.
            called: its name, when no variable holds it.

        Raises:
            DeclarationError: MS-1003 to MS-1007, MS-1013, MS-1014, MS-1033, MS-1062.
        """
        origin, fields = here(), fields_of(record)
        columns_exist(record, fields, time=time, ingested=ingested, valid_to=valid_to, id=id, deleted=deleted)
        time_zone(zone)
        every_us = None if every is None else microseconds(every, what="every")
        known = checks_fit(checks, {field.name: field for field in fields}, record.__name__)
        spec = SourceSpec(record, fields, time, ingested, valid_to, id, deleted, zone, every_us, known)
        return self._add(Source(spec, origin, called))

    @overload
    def features(
        self,
        *sources: Source | FeatureView,
        entity: Entity | tuple[Entity, ...],
        ttl: Duration | None = ...,
        every: Duration | None = ...,
        online: bool = ...,
        rows: Literal["each", "whole"] = ...,
        returns: type[Record] | None = ...,
        checks: Sequence[object] = ...,
        called: str | None = ...,
    ) -> Callable[[Callable[..., object]], FeatureView]: ...
    @overload
    def features(
        self,
        *sources: Source | FeatureView,
        entity: Entity | tuple[Entity, ...],
        ttl: Duration | None = ...,
        every: Duration | None = ...,
        online: bool = ...,
        rows: Literal["each", "whole"] = ...,
        returns: type[Record] | None = ...,
        checks: Sequence[object] = ...,
        called: str | None = ...,
        **features: Aggregate,
    ) -> FeatureView: ...
    def features(
        self,
        *sources: Source | FeatureView,
        entity: Entity | tuple[Entity, ...] | None = None,
        ttl: Duration | None = None,
        every: Duration | None = None,
        online: bool = True,
        rows: Literal["each", "whole"] = "each",
        returns: type[Record] | None = None,
        checks: Sequence[object] = (),
        called: str | None = None,
        **features: Aggregate,
    ) -> FeatureView | Callable[[Callable[..., object]], FeatureView]:
        """Features of an entity: declared aggregates of one source, or a function as a decorator.

        Args:
            sources: what they are computed from.
            entity: whose they are; several make a composite key, in this order.
            ttl: how long the newest row answers ``last``; for ever when left out. Windows do not know it.
            every: how often a server brings the view up to date, in place of its source's `every`.
            online: whether it is materialised for serving.
            rows: ``each`` when f(A + B) = f(A) + f(B); ``whole`` recomputes everything.
            returns: the record that a function returns, besides keys and time; inferred when left out.
            checks: what its rows must satisfy before they are committed: of a function, what it returns; of
                aggregates, the keys and the columns that they read. ``fresh`` is watched by servers too.
            called: its name, when no variable holds it.
            features: name = `last`, `count`, `total`, `avg`, `variance`, `stddev`, `lowest` or `highest`.

        Raises:
            DeclarationError: MS-1001, MS-1002, MS-1007, MS-1008, MS-1015, MS-1016, MS-1028, MS-1032 to MS-1034,
                MS-1037, MS-1062.
        """
        origin = here()
        known_options(Featuring.features, features)
        entities = () if entity is None else entity if isinstance(entity, tuple) else (entity,)
        choice("rows", rows, ("each", "whole"))
        flag("online", online)
        ttl_us = None if ttl is None else microseconds(ttl, what="ttl")
        every_us = None if every is None else microseconds(every, what="every")
        described = () if returns is None else fields_of(returns)
        aggregates_fit(sources, entities, features, origin)
        known = checks_fit(
            checks, view_columns(sources, entities, features, described), "the feature view", of_view=True
        )

        def view(function: Callable[..., object] | None, name: str | None) -> FeatureView:
            spec = FeatureViewSpec(
                sources, entities, ttl_us, every_us, online, rows, tuple(features.items()), function, described, known
            )
            return self._add(FeatureView(spec, origin, name))

        if features:
            return view(None, called)
        return lambda function: view(function, called or function.__name__)

    def vector_index(
        self,
        feature: Feature,
        *,
        filters: Sequence[str] = (),
        metric: Nearness = "cosine",
        called: str | None = None,
    ) -> VectorIndex:
        """An index over a feature that is a vector: entities found by nearness, with the features that they have now.

        It follows its view: pushes, corrections, deletions, ``ttl`` and ``valid_to`` hold for it as they do online.

        Args:
            feature: the vector, a feature that the view's newest row answers: ``catalogue.image``.
            filters: features and entity keys of the view that searches may filter by.
            metric: ``cosine`` compares directions; ``dot`` takes the vectors as they are.
            called: its name, when no variable holds it.

        Raises:
            DeclarationError: MS-1033, MS-1034, MS-1036; when the app is loaded, MS-1121, it is no vector; MS-1122, a
                filter cannot be one; MS-1123, the view is not kept online.
        """
        is_a("what app.vector_index takes", feature, Feature, 'app.vector_index(catalogue.image, filters=["price"])')
        texts("filters", filters)
        choice("metric", metric, ("cosine", "dot"))
        return self._add(VectorIndex(VectorIndexSpec(feature, tuple(filters), metric), here(), called))
