"""What a list of inputs stands for: features that are read, values of the request, and what is computed of both.

A row of a selection is, in this order: the features of its picks, the request's fields, what each calculation returns.
Places in it are numbers, so that neither history nor a server looks a name up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from mainspring.declare.data import Feature
from mainspring.declare.declaration import name_of, origin_of, spec_of
from mainspring.declare.model import Input
from mainspring.declare.on_demand import OnDemand, OnDemandFeature, RequestField, Written
from mainspring.declare.record import ColumnType, FieldSpec
from mainspring.errors import DeclarationError
from mainspring.features.view import Pick, View, picks_of
from mainspring.plan.closure import closure_of

__all__ = ["Calculation", "Given", "Output", "Selection", "functions_of", "on_demand_in", "selection_of"]


class Given(msgspec.Struct, frozen=True):
    """What a calculation is given for a parameter, and where in the row that is."""

    name: str
    place: int
    type: ColumnType


@dataclass(frozen=True, slots=True)
class Calculation:
    """An on-demand function as a value; the function itself goes beside it.

    Attributes:
        name: the declaration's.
        written: how it is called.
        inputs: what it is given.
        fields: what it returns, in order.
        code: digest of the function and all that it reaches.
        origin: the line it was declared on; not compared.
    """

    name: str
    written: Written
    inputs: tuple[Given, ...]
    fields: tuple[FieldSpec, ...]
    code: str
    origin: str = field(default="", compare=False)


class Output(msgspec.Struct, frozen=True):
    """A feature that was asked for.

    Attributes:
        view: the name of the feature view, or of the on-demand function.
        name: the feature's.
        type: its type.
        place: where in the row it is.
        computed: whether a calculation makes it.
    """

    view: str
    name: str
    type: ColumnType
    place: int
    computed: bool


class Selection(msgspec.Struct, frozen=True):
    """What is read and computed for some inputs.

    Attributes:
        picks: the features that are read.
        request: the values that a request carries; offline columns of the spine.
        calculations: in the order they are carried out.
        outputs: what was asked for, in order.
    """

    picks: tuple[Pick, ...]
    request: tuple[FieldSpec, ...]
    calculations: tuple[Calculation, ...]
    outputs: tuple[Output, ...]

    @property
    def plain(self) -> bool:
        """Whether what is read is what was asked for, in that order."""
        width = sum(len(one.features) for one in self.picks)
        return not self.calculations and [output.place for output in self.outputs] == [*range(width)]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features that were asked for, in order."""
        return tuple(output.name for output in self.outputs)

    @property
    def keys(self) -> dict[str, ColumnType]:
        """The entity keys of the views that are read, with their types."""
        return {key.name: key.type for pick in self.picks for key in pick.view.keys}


def on_demand_in(inputs: Sequence[object]) -> tuple[OnDemand, ...]:
    """The on-demand functions among inputs and those that they are made from, each once, what is needed first."""
    found: dict[int, OnDemand] = {}

    def visit(item: object) -> None:
        owner = item.view if isinstance(item, OnDemandFeature) else item
        if isinstance(owner, OnDemand) and id(owner) not in found:
            for _, above in spec_of(owner).inputs:
                visit(above)
            found[id(owner)] = owner

    for item in inputs:
        visit(item)
    return tuple(found.values())


def functions_of(inputs: Sequence[object]) -> dict[str, Callable[..., object]]:
    """The on-demand functions that some inputs need, by the name of the declaration."""
    return {name_of(item): spec_of(item).function for item in on_demand_in(inputs)}


def selection_of(inputs: Sequence[Input], views: Mapping[str, View]) -> Selection:
    """What inputs stand for; columns of a label's source are left out.

    Args:
        inputs: as `App.model` and `App.feature_service` take them.
        views: the views by name.

    Raises:
        DeclarationError: MS-2160, two on-demand functions name one request field and mean different types.
    """
    functions = on_demand_in(inputs)
    wanted = [item for item in inputs if not isinstance(item, OnDemand | OnDemandFeature)]
    beneath = [item for one in functions for _, item in spec_of(one).inputs if isinstance(item, Feature)]
    picks = _grouped(picks_of([*wanted, *beneath], views))
    request = _request_of(functions)
    places = _Places(picks, request)
    calculations = tuple(places.add(one) for one in functions)
    return Selection(picks, request, calculations, tuple(places.outputs(inputs, views)))


def _grouped(picks: Sequence[Pick]) -> tuple[Pick, ...]:
    """One pick a view, each feature once."""
    found: dict[str, dict[str, None]] = {}
    for one in picks:
        found.setdefault(one.view.name, {}).update(dict.fromkeys(feature.name for feature in one.features))
    views = {one.view.name: one.view for one in picks}
    return tuple(Pick(views[name], tuple(views[name].feature(f) for f in features)) for name, features in found.items())


def _request_of(functions: Sequence[OnDemand]) -> tuple[FieldSpec, ...]:
    found: dict[str, FieldSpec] = {}
    for function in functions:
        for name, item in spec_of(function).inputs:
            if not isinstance(item, RequestField):
                continue
            known = found.setdefault(name, FieldSpec(name, item.type))
            if known.type != item.type:
                raise DeclarationError(
                    f"request field {name!r} is {known.type} and {item.type}",
                    code="MS-2160",
                    why="one name in a request is one value",
                    origin=str(origin_of(function)),
                    fix="give both on-demand functions the same app.request(...), or rename one parameter",
                )
    return tuple(found.values())


class _Places:
    def __init__(self, picks: Sequence[Pick], request: Sequence[FieldSpec]) -> None:
        flat = [(one.view.name, feature.name, feature.type) for one in picks for feature in one.features]
        self._of = {(view, name): (place, kind) for place, (view, name, kind) in enumerate(flat)}
        self._request = {one.name: (place, one.type) for place, one in enumerate(request, len(flat))}
        self._computed: dict[tuple[str, str], tuple[int, ColumnType]] = {}
        self._next = len(flat) + len(request)

    def add(self, declared: OnDemand) -> Calculation:
        spec, name = spec_of(declared), name_of(declared)
        given = tuple(Given(parameter, *self._place(parameter, item)) for parameter, item in spec.inputs)
        fields = (FieldSpec(name, spec.returns[0].type),) if spec.single else spec.returns
        for one in fields:
            self._computed[name, one.name] = (self._next, one.type)
            self._next += 1
        code = closure_of(spec.function).digest
        return Calculation(name, spec.written, given, fields, code, str(origin_of(declared)))

    def _place(self, parameter: str, item: object) -> tuple[int, ColumnType]:
        if isinstance(item, Feature):
            return self._of[name_of(item.view), item.name]
        if isinstance(item, OnDemandFeature):
            return self._computed[name_of(item.view), item.name]
        if isinstance(item, OnDemand):
            return self._computed[name_of(item), name_of(item)]
        return self._request[parameter]

    def outputs(self, inputs: Sequence[Input], views: Mapping[str, View]) -> list[Output]:
        found = []
        for item in inputs:
            if isinstance(item, OnDemandFeature):
                asked = [(name_of(item.view), item.name)]
            elif isinstance(item, OnDemand):
                asked = [key for key in self._computed if key[0] == name_of(item)]
            else:
                asked = [(one.view.name, f.name) for one in picks_of([item], views) for f in one.features]
            computed = isinstance(item, OnDemand | OnDemandFeature)
            of = self._computed if computed else self._of
            found += [Output(view, name, of[view, name][1], of[view, name][0], computed) for view, name in asked]
        return found
