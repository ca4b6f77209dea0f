"""The part of an app that is computed or read when somebody asks: on-demand features, and feature services."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence

from mainspring.declare.data import Feature, FeatureView
from mainspring.declare.declaration import spec_of
from mainspring.declare.declared import Declared
from mainspring.declare.on_demand import (
    FeatureInput,
    FeatureService,
    FeatureServiceSpec,
    OnDemand,
    OnDemandFeature,
    OnDemandInput,
    OnDemandSpec,
    RequestField,
    Written,
)
from mainspring.declare.options import are, is_a
from mainspring.declare.origin import here, of_function
from mainspring.declare.record import ColumnType, Field, FieldSpec, Kind, Record, column_type, fields_of
from mainspring.errors import DeclarationError

__all__ = ["Computing"]

_EXAMPLE = "@app.on_demand(delay=congestion.delay_1h, seats=app.request(int))"


class Computing(Declared):
    """What an app declares to be computed at the moment of a question."""

    def request(self, type: object, *, length: int = 0, precision: int = 38, scale: int = 9) -> RequestField:
        """A value that a request carries, as an input of `on_demand`; offline a column of the spine.

        Args:
            type: ``int``, ``float``, ``str``, ``bool``, ``datetime``, ``date``, ``Decimal`` or ``list[float]``; with
                ``| None`` it may be null or left out.
            length: elements of a vector.
            precision: digits of a decimal.
            scale: those after the point.

        Raises:
            DeclarationError: MS-1003, MS-1004, no column holds such a type.
        """
        rules = Field(length=length, precision=precision, scale=scale)
        return RequestField(column_type(type, rules, where="app.request", origin=here()), here())

    def on_demand(
        self, *, returns: object = None, called: str | None = None, **inputs: OnDemandInput
    ) -> Callable[[Callable[..., object]], OnDemand]:
        """Features that a function makes of other features and of the request, alike in training and in serving.

        A function with one parameter a declared input is called a row, with scalars, by name; it returns a scalar,
        which bears the function's name, or a `Record`, a feature a field. A function with one parameter annotated
        ``pl.DataFrame`` is called a batch and returns a DataFrame of as many rows, each made of its own row alone. A
        function without parameters returns DuckDB SQL over the table ``inputs``, in its rows' order.

        Args:
            returns: the `Record` or the type that is returned, where no annotation says so.
            called: its name, when not the function's.
            inputs: parameter = ``view.feature``, another on-demand feature, or ``app.request(type)``.

        Raises:
            DeclarationError: MS-1003 to MS-1006, MS-1029, MS-1033, MS-1070 to MS-1072.
        """
        for name, value in inputs.items():
            kinds = (Feature, OnDemand, OnDemandFeature, RequestField)
            is_a(name, value, kinds, _EXAMPLE)
            if isinstance(value, OnDemand) and not spec_of(value).single:
                raise DeclarationError(
                    f"{name} is a function with several features",
                    code="MS-1071",
                    origin=str(here()),
                    fix=f"name one: {name}=FUNCTION.{spec_of(value).returns[0].name}",
                )
        if not inputs:
            raise DeclarationError(
                "an on-demand function needs an input", code="MS-1070", origin=str(here()), fix=_EXAMPLE
            )

        def declare(function: Callable[..., object]) -> OnDemand:
            name = called or function.__name__
            hints = _hints(function)
            written = _written(function, hints, inputs)
            fields, single = _returned(name, function, returns if returns is not None else hints.get("return"))
            spec = OnDemandSpec(tuple(inputs.items()), function, written, fields, single)
            return self._add(OnDemand(spec, of_function(function), name))

        return declare

    def feature_service(self, name: str, inputs: Sequence[FeatureInput]) -> FeatureService:
        """Features that clients read together, under one name: ``POST /feature-services/NAME/read``.

        Args:
            name: its name.
            inputs: feature views, single features and on-demand features, in the order of the answers.

        Raises:
            DeclarationError: MS-1033, MS-1070.
        """
        is_a("name", name, str, 'app.feature_service("ranking", [view, view.feature])')
        kinds = (FeatureView, Feature, OnDemand, OnDemandFeature)
        are("inputs", inputs, kinds, "inputs=[VIEW, VIEW.feature, ON_DEMAND]")
        if not inputs:
            raise DeclarationError(
                f"feature service {name!r} has no features",
                code="MS-1070",
                origin=str(here()),
                fix=f'app.feature_service("{name}", [view, view.feature])',
            )
        return self._add(FeatureService(FeatureServiceSpec(tuple(inputs)), here(), name))


def _hints(function: Callable[..., object]) -> Mapping[str, object]:
    """The annotations, resolved; those that cannot be are left as their text."""
    raw = inspect.get_annotations(function)
    try:
        return typing.get_type_hints(function)
    except (NameError, AttributeError, TypeError):
        return raw


def _is_table(annotation: object) -> bool:
    return str(getattr(annotation, "__name__", annotation)).rpartition(".")[2] == "DataFrame"


def _written(
    function: Callable[..., object], hints: Mapping[str, object], inputs: Mapping[str, OnDemandInput]
) -> Written:
    parameters = inspect.signature(function).parameters
    if not parameters:
        return "sql"
    if len(parameters) == 1 and (_is_table(hints.get(next(iter(parameters)))) or _is_table(hints.get("return"))):
        return "polars"
    try:
        inspect.signature(function).bind(**dict.fromkeys(inputs))
    except TypeError as error:
        raise DeclarationError(
            f"{function.__name__} does not take the inputs {', '.join(inputs)}",
            code="MS-1029",
            why=str(error),
            origin=str(of_function(function)),
            fix=f"def {function.__name__}({', '.join(inputs)}): ...",
        ) from None
    for name, value in inputs.items():
        _may_be_missing(function, name, value, hints.get(name))
    return "scalar"


def _may_be_missing(function: Callable[..., object], name: str, value: OnDemandInput, annotation: object) -> None:
    """A feature may be missing, so a parameter that is annotated must say what it does about that (MS-1072)."""
    if annotation is None or isinstance(annotation, str):
        return
    given = ColumnType(Kind.FLOAT, True) if not isinstance(value, RequestField) else value.type
    takes_none = type(None) in typing.get_args(annotation) or annotation is object or annotation is typing.Any
    if given.nullable and not takes_none:
        shown = getattr(annotation, "__name__", str(annotation))
        raise DeclarationError(
            f"{function.__name__} takes {name} as {shown}, and it may be missing",
            code="MS-1072",
            why="an entity that was never seen has no features"
            if not isinstance(value, RequestField)
            else "the request need not carry it",
            origin=str(of_function(function)),
            fix=f"write {name}: {shown} | None, and say what comes of None",
        )


def _returned(name: str, function: Callable[..., object], annotation: object) -> tuple[tuple[FieldSpec, ...], bool]:
    """The features of a function, and whether it is one scalar under the function's own name."""
    if annotation is None or isinstance(annotation, str) or _is_table(annotation):
        raise DeclarationError(
            f"what the on-demand function {name!r} returns is not known",
            code="MS-1070",
            why="features have a type"
            if not isinstance(annotation, str)
            else f"its annotation {annotation!r} names nothing at the top of the file",
            origin=str(of_function(function)),
            fix="annotate it, -> float | None, or pass returns=RECORD",
        )
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return fields_of(annotation), False
    kind = column_type(annotation, Field(), where=f"{name}'s answer", origin=of_function(function))
    return (FieldSpec(name, kind),), True
