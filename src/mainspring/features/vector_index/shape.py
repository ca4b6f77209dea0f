"""An index over a vector that is a feature, as a value that any process can hold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import cast

import msgspec

from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.record import ColumnType
from mainspring.declare.vector_index import Nearness, VectorIndex
from mainspring.features.logs.log import SourceTable
from mainspring.features.view import FeatureDef, View
from mainspring.plan.vector_index import FILTERED
from mainspring.ports.vector_store import Field, FieldType, Schema

__all__ = ["ENTITY", "EVENT_US", "UNTIL_US", "FilterField", "VectorIndexShape", "vector_index_shape"]

ENTITY = "entity"
"""The key of a point's payload with the entity's keys, as JSON text."""
EVENT_US = "event"
"""The key of a point's payload with the event time, UTC microseconds."""
UNTIL_US = "until"
"""The key of a point's payload with the moment from which on it is not valid, UTC microseconds; missing is open."""

_LAYOUT = 1
"""Of points: another one is another collection."""
_PLAIN = re.compile(r"[A-Za-z0-9_.]{1,60}")


class FilterField(msgspec.Struct, frozen=True):
    """What searches may filter by.

    Attributes:
        name: of the feature or entity key.
        column: its type.
        type: what a filter compares it as.
        key: the key of a point's payload that holds it.
        of_key: whether it is an entity key.
    """

    name: str
    column: ColumnType
    type: FieldType
    key: str
    of_key: bool


class VectorIndexShape(msgspec.Struct, frozen=True):
    """A vector index.

    Attributes:
        name: its name.
        owner: tells the collections of this project from those of others in the same store, 8 hex digits.
        view: the view, with its online number.
        vector: the feature that is indexed.
        filters: what searches may filter by.
        metric: ``cosine`` or ``dot``.
        source: the source of a view of declared aggregates, as `materialise` takes it; None of a decorated one.
    """

    name: str
    owner: str
    view: View
    vector: FeatureDef
    filters: tuple[FilterField, ...]
    metric: Nearness
    source: SourceTable | None = None

    @property
    def prefix(self) -> str:
        """What the names of all its collections begin with, whatever their definition."""
        named = self.name if _PLAIN.fullmatch(self.name) else _short(self.name)
        return f"vector_index-{named}-{self.owner}-"

    @property
    def digest(self) -> str:
        """Of all that decides what the points are, 16 hex digits: another one is built beside this one."""
        view = self.view
        compared = [one.name if one.of_key else view.feature(one.name).column for one in self.filters]
        types = [str(one) for one in (self.vector.type, *(one.column for one in self.filters))]
        return _short(repr((_LAYOUT, view.log, self.vector.column, compared, types, self.metric, view.ttl_us)))

    @property
    def has_until(self) -> bool:
        """Whether rows end; online, those with windows do not."""
        return self.view.has_valid_to and not self.view.windowed

    @property
    def schema(self) -> Schema:
        """What its collections hold."""
        times = (Field(EVENT_US, "integer"), *((Field(UNTIL_US, "integer"),) if self.has_until else ()))
        fields = (*times, *(Field(one.key, one.type) for one in self.filters))
        return Schema(self.vector.type.length, self.metric, fields, text=False, language="")

    @property
    def types(self) -> Mapping[str, FieldType]:
        """What searches may filter by, with its types."""
        return {one.name: one.type for one in self.filters}

    def collection(self, nonce: str) -> str:
        """The name of a collection of this definition."""
        return f"{self.prefix}{self.digest}-{nonce}"


def vector_index_shape(
    declaration: VectorIndex, view: View, owner: str, source: SourceTable | None
) -> VectorIndexShape:
    """The value of a declared vector index.

    Args:
        declaration: what the app declares; the plan has checked it.
        view: its view, with the online number.
        owner: as `VectorIndexShape.owner`.
        source: as `VectorIndexShape.source`.
    """
    spec = spec_of(declaration)
    keys = {key.name: key.type for key in view.keys}
    filters = []
    for place, name in enumerate(spec.filters):
        column = keys.get(name) or view.feature(name).type
        type_ = cast(FieldType, FILTERED[column.kind])
        filters.append(FilterField(name, column, type_, f"filter.{place}", name in keys))
    return VectorIndexShape(
        name_of(declaration), owner, view, view.feature(spec.feature.name), tuple(filters), spec.metric, source
    )


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
