"""Features that are computed when they are asked for, and services that answer with features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from mainspring.declare.data import Column, Feature, FeatureView, did_you_mean
from mainspring.declare.declaration import Declaration, DeclaredKind
from mainspring.declare.origin import Origin, here
from mainspring.declare.record import ColumnType, FieldSpec
from mainspring.errors import DeclarationError

__all__ = [
    "FeatureInput",
    "FeatureService",
    "FeatureServiceSpec",
    "ModelInput",
    "OnDemand",
    "OnDemandFeature",
    "OnDemandInput",
    "OnDemandSpec",
    "RequestField",
    "Written",
]

Written: TypeAlias = Literal["scalar", "polars", "sql"]
"""What an on-demand function is: called a row, called a batch, or a query."""


class RequestField(msgspec.Struct, frozen=True, eq=False):
    """A value that a request carries, as ``app.request(int)``; offline it is a column of the spine."""

    type: ColumnType
    origin: Origin


class OnDemandSpec(msgspec.Struct, frozen=True):
    """Features that a function makes of other features and of the request.

    Attributes:
        inputs: what the function is given, by its parameter; a request field bears its parameter's name.
        function: pure: scalars to a scalar or Record, `polars.DataFrame` to `polars.DataFrame`, or no parameter and
            DuckDB SQL over the table ``inputs``.
        written: which of these it is.
        returns: the features it returns, in order.
        single: whether it returns one scalar, which bears the declaration's own name.
    """

    inputs: tuple[tuple[str, OnDemandInput], ...]
    function: Callable[..., object]
    written: Written
    returns: tuple[FieldSpec, ...]
    single: bool


class OnDemandFeature(msgspec.Struct, frozen=True, eq=False):
    """One feature of an on-demand function that returns a Record, as ``pressure.ratio``."""

    view: OnDemand
    name: str
    origin: Origin


class OnDemand(Declaration[OnDemandSpec]):
    """A declared on-demand function; of one that returns a Record, the attributes are its features."""

    __slots__ = ()

    def __init__(self, spec: OnDemandSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.ON_DEMAND, spec, origin, name)

    def __call__(self, *args: object, **inputs: object) -> object:
        """What the function makes of these inputs, called as it was written."""
        return self._spec.function(*args, **inputs)

    def __getattr__(self, name: str) -> OnDemandFeature:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> OnDemandFeature:
        known = [field.name for field in self._spec.returns]
        if name not in known:
            raise DeclarationError(
                f"the on-demand function has no feature {name!r}",
                code="MS-1012",
                origin=str(here()),
                fix=did_you_mean(name, known),
            )
        return OnDemandFeature(self, name, here())


OnDemandInput: TypeAlias = Feature | OnDemand | OnDemandFeature | RequestField
FeatureInput: TypeAlias = FeatureView | Feature | OnDemand | OnDemandFeature
ModelInput: TypeAlias = FeatureInput | Column


class FeatureServiceSpec(msgspec.Struct, frozen=True):
    """Features that are asked for together, under one name.

    Attributes:
        inputs: feature views, single features and on-demand features, in the order of the answers.
    """

    inputs: tuple[FeatureInput, ...]


class FeatureService(Declaration[FeatureServiceSpec]):
    """A declared feature service."""

    __slots__ = ()

    def __init__(self, spec: FeatureServiceSpec, origin: Origin, name: str) -> None:
        super().__init__(DeclaredKind.FEATURE_SERVICE, spec, origin, name)
