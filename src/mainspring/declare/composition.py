"""Models put together by a plain function: what comes before them, after them, and between them, in one hop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from mainspring.declare.declaration import Declaration, DeclaredKind
from mainspring.declare.model import ModelDeclaration
from mainspring.declare.origin import Origin
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["Composition", "CompositionEndpoint", "CompositionEndpointSpec", "CompositionSpec", "Part", "Rows"]


class Rows:
    """The rows that a composition is asked about: columns of numbers, NaN where one is missing. It is never changed.

    Args:
        columns: a vector (rows,) by each name, float64.

    ``x["distance"]`` is a vector; `put` makes new rows of these and more.
    """

    __slots__ = ("_columns",)

    def __init__(self, columns: Mapping[str, NDArray[np.float64]]) -> None:
        self._columns = dict(columns)

    @property
    def columns(self) -> list[str]:
        """The columns' names, in order."""
        return list(self._columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()))) if self._columns else 0

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """A column (rows,), float64; it is a copy, and may be written to."""
        return np.array(self._columns[name])

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def put(self, **columns: object) -> Rows:
        """The same rows with these columns, each (rows,) or one number for all.

        Raises:
            ValueError: a column has another number of rows.
        """
        found = dict(self._columns)
        for name, values in columns.items():
            found[name] = np.broadcast_to(np.asarray(values, np.float64), (len(self),))
        return Rows(found)

    def numpy(self, names: Sequence[str] | None = None) -> NDArray[np.float64]:
        """The columns of these names, or all, as a matrix (rows, columns) float64.

        Raises:
            KeyError: there is no column of a name.
        """
        return np.column_stack([self._columns[name] for name in (self.columns if names is None else names)])


class Part(Protocol):
    """A model inside of a composition: called with rows that have its columns, it scores them."""

    @property
    def version(self) -> str:
        """The version that scores."""

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """One score a row, (rows,): the probability of true, or the predicted number."""


class CompositionSpec(msgspec.Struct, frozen=True):
    """Models and the function over them.

    Attributes:
        function: takes the rows, and the models in their order; gives one number a row.
        models: the models.
        gives: ``probability`` or ``number``; None is what the first model gives.
    """

    function: Callable[..., Any]
    models: tuple[ModelDeclaration, ...]
    gives: Literal["probability", "number"] | None = None


class Composition(Declaration[CompositionSpec]):
    """A declared composition; calling it calls the function."""

    def __init__(self, spec: CompositionSpec, origin: Origin, name: str) -> None:
        super().__init__(DeclaredKind.COMPOSITION, spec, origin, name)
        self.__wrapped__ = spec.function
        self.__doc__ = spec.function.__doc__

    def __call__(self, rows: Rows, *models: Part | Callable[[Rows], Any]) -> Any:
        """Carry the function out with these rows and whatever stands for the models: in tests, plain functions."""
        return self._spec.function(rows, *models)


class CompositionEndpointSpec(msgspec.Struct, frozen=True):
    """A composition behind a URL.

    Attributes:
        model: the composition.
        latency_us: the promised latency in microseconds, or None.
        log: the share of answers that the prediction log keeps, in [0, 1].
    """

    model: Composition
    latency_us: int | None
    log: float


class CompositionEndpoint(Declaration[CompositionEndpointSpec]):
    """A declared endpoint over a composition."""

    __slots__ = ()

    def __init__(self, spec: CompositionEndpointSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.ENDPOINT, spec, origin, name)
