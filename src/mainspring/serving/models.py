"""Model versions in this process: loaded, warmed, then swapped in whole."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.declare.batching import Batching
from mainspring.errors import DataError
from mainspring.lazy import lazy
from mainspring.ports.runtime import Card, Predictor, read_card
from mainspring.serving.batching import Batcher, Meter, Scored
from mainspring.serving.native_thread import NativeThread
from mainspring.serving.residency import Resident
from mainspring.serving.statistics import Statistics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["LiveModel", "load_live", "queue_of", "takes_parameters", "warmed"]

_WARM_ROWS = (1, 8, 1)
_LARGE = 1 << 20
"""Bytes of a matrix beyond which it is not made to fit on the event loop."""
_OF_THE_WIRE = frozenset({"priority", "timeout", "binary_data_output"})
"""Parameters of a call that say nothing to the model."""


class LiveModel(msgspec.Struct, frozen=True, weakref=True, eq=False):
    """A model version that is ready to answer.

    Attributes:
        version: its version.
        entity: its id in the catalog.
        card: what is stored.
        predictor: the loaded model.
        batches: the queue for calls that take long; None computes every call at once, where it is asked.
        at_once: the most rows that are computed at once all the same, for they cost less than a queue would.
        statistics: what it has done.
        parts: of a composition, the version of each of its models.
    """

    version: str
    entity: str
    card: Card
    predictor: Predictor
    batches: Batcher | None = None
    at_once: int = 0
    statistics: Statistics = msgspec.field(default_factory=Statistics)
    parts: Mapping[str, str] = msgspec.field(default_factory=dict)

    def score(self, rows: Sequence[Sequence[object]]) -> Sequence[float]:
        """One score a row of the model's columns, computed here; None is missing.

        Raises:
            DataError: MS-2306, the model takes no missing or infinite value, and there is one.
        """
        scores: list[float] = self.scores(_matrix(rows)).tolist()
        return scores

    async def score_soon(
        self, rows: Sequence[Sequence[object]], deadline: float | None = None
    ) -> tuple[Sequence[float], int]:
        """The same on an event loop, which goes on meanwhile when it takes long, and the nanoseconds that it waited.

        Raises:
            DataError: MS-2306, as `score`.
            Rejected: BUSY, EXPIRED, as `scores_soon`.
        """
        if self.is_quick(len(rows)):
            return self.score(rows), 0
        scored = await self.scores_soon(_matrix(rows), deadline, protocol="native")
        scores: list[float] = scored.scores.tolist()
        return scores, scored.queue_ns

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """Scores of a matrix (rows, columns); a number beyond what the model's dtype holds counts as its greatest.

        Raises:
            DataError: MS-2306, the model takes no missing or infinite value, and there is one.
        """
        return _scored(self.predictor, _fitted(matrix, self.card.dtype))

    def is_quick(self, rows: int) -> bool:
        """Whether so many rows are computed at once, where they are asked."""
        if isinstance(self.predictor, Resident):
            return rows <= self.predictor.at_once
        return rows <= self.at_once or self.batches is None

    @property
    def together(self) -> int:
        """The most rows of several callers that are computed at once, where they are asked; 1 is each alone."""
        if self.batches is None or isinstance(self.predictor, Resident):
            return 1
        return min(self.at_once, self.batches.limits.rows)

    def executed(self, rows: int, calls: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """Count a batch that was computed at once, as `Meter.executed`."""
        if self.batches is None:
            self.statistics.executed(rows, input_ns, infer_ns, output_ns)
        else:
            self.batches.meter.executed(rows, calls, input_ns, infer_ns, output_ns)

    async def scores_soon(
        self,
        matrix: NDArray[Any],
        deadline: float | None = None,
        priority: int = 0,
        parameters: Mapping[str, Any] | None = None,
        protocol: str = "",
    ) -> Scored:
        """Scores of a matrix that waits for the model, and is scored with others that do.

        Args:
            matrix: (rows, columns).
            deadline: the moment of `time.monotonic` after which nobody waits.
            priority: 1 is the highest, 0 the default.
            parameters: what the caller sets beside, for models that take parameters.
            protocol: the wire that it came by, for its counts.

        Raises:
            DataError: MS-2306, the model takes no missing or infinite value, and there is one.
            Rejected: BUSY, too much waits already; EXPIRED, the deadline is over.
        """
        assert self.batches is not None
        if matrix.nbytes > _LARGE:
            fitted = await asyncio.to_thread(_fitted, matrix, self.card.dtype)
        else:
            fitted = _fitted(matrix, self.card.dtype)
        group = _group(parameters) if parameters and takes_parameters(self.predictor) else ()
        return await self.batches.submit(fitted, group=group, deadline=deadline, priority=priority, protocol=protocol)


def takes_parameters(predictor: Predictor) -> bool:
    """Whether a predictor is told the parameters of a call."""
    return getattr(predictor, "takes_parameters", False) is True


def _group(parameters: Mapping[str, Any]) -> Hashable:
    """What is equal for equal parameters; 1, 1.0 and true are different ones."""
    return tuple(sorted((name, repr(value), value) for name, value in parameters.items() if name not in _OF_THE_WIRE))


def _matrix(rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
    return np.array([[np.nan if value is None else value for value in row] for row in rows], np.float64)


def _scored(predictor: Predictor, fitted: NDArray[Any], group: Any = ()) -> NDArray[np.float64]:
    try:
        if group:
            return predictor.scores(fitted, {name: value for name, _, value in group})  # type: ignore[call-arg]
        return predictor.scores(fitted)
    except ValueError as error:
        if np.isfinite(fitted).all():
            raise
        raise DataError(
            "the model takes no missing and no infinite value",
            code="MS-2306",
            why="a column of the request, or a feature of its keys, is missing or infinite",
            fix="send every column, or train a model that takes missing values",
        ) from error


@functools.cache
def _kind(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype)


def _fitted(matrix: NDArray[Any], dtype: str) -> NDArray[Any]:
    """A matrix in a dtype, rows together in memory; what was finite stays finite."""
    if matrix.dtype == _kind(dtype) and matrix.flags.c_contiguous:
        return matrix
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(matrix, dtype=dtype)
    if found.dtype.itemsize < matrix.dtype.itemsize and np.isinf(found).any():
        most = np.finfo(found.dtype).max
        found = np.where(np.isfinite(matrix), np.clip(found, -most, most), found)
    return found


def load_live(version: int, entity: str, folder: Path, load: Callable[[Path], Predictor]) -> LiveModel:
    """Load a version and warm it: it has answered before it takes traffic.

    Raises:
        ValueError: it does not answer zeros of its schema.
    """
    return warmed(LiveModel(str(version), entity, read_card(folder), load(folder)))


def warmed(model: LiveModel, samples: Sequence[Mapping[str, float | None]] = ()) -> LiveModel:
    """The model when it has answered: zeros of its schema, and what is declared.

    Args:
        model: it.
        samples: rows by the names of its columns; those that it has not are passed over, those that are not there are
            missing. They are scored one by one and together.
    """
    for rows in _WARM_ROWS:
        model.scores(np.zeros((rows, len(model.card.columns)), model.card.dtype))
    if samples:
        matrix = _matrix([[row.get(name) for name in model.card.columns] for row in samples])
        for place in range(len(matrix)):
            model.scores(matrix[place : place + 1])
        model.scores(matrix)
    return model


def queue_of(name: str, predictor: Predictor, batching: Batching, meter: Meter) -> Batcher:
    """The queue of a version, with a thread of its own that begins with the first call that takes long."""

    def compute(matrix: NDArray[Any], group: Hashable) -> NDArray[np.float64]:
        return _scored(predictor, matrix, group)

    return Batcher(compute, batching, NativeThread(f"model-{name}"), meter)
