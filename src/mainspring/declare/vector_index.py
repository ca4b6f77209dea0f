"""Indexes over a vector that is a feature: entities found by nearness, with the features that they have now."""

from __future__ import annotations

from typing import Literal

import msgspec

from mainspring.declare.data import Feature
from mainspring.declare.declaration import Declaration, DeclaredKind
from mainspring.declare.origin import Origin

__all__ = ["Nearness", "VectorIndex", "VectorIndexSpec"]

Nearness = Literal["cosine", "dot"]


class VectorIndexSpec(msgspec.Struct, frozen=True):
    """An index over a feature.

    Attributes:
        feature: the vector.
        filters: the features and entity keys of its view that searches may filter by.
        metric: ``cosine`` compares directions; ``dot`` takes the vectors as they are.
    """

    feature: Feature
    filters: tuple[str, ...]
    metric: Nearness


class VectorIndex(Declaration[VectorIndexSpec]):
    """A declared index over a vector that is a feature; it follows its view."""

    __slots__ = ()

    def __init__(self, spec: VectorIndexSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.VECTOR_INDEX, spec, origin, name)
