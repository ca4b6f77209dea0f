"""Model versions in this process: loaded, warmed, then swapped in whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.errors import DataError
from mainspring.lazy import lazy
from mainspring.ports.runtime import Card, Predictor, read_card

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["WARM", "LiveModel", "load_live", "warmed"]

WARM = "warm.npy"
"""The file of a model's folder with rows to warm it with, (rows, columns)."""

_WARM_ROWS = (1, 8, 1)


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class LiveModel:
    """A model version that is ready to answer.

    Attributes:
        version: its version.
        entity: its id in the catalog.
        card: what is stored.
        predictor: the loaded model.
        parts: of a composition, the version of each of its models.
    """

    version: str
    entity: str
    card: Card
    predictor: Predictor
    parts: Mapping[str, str] = field(default_factory=dict)

    def score(self, rows: Sequence[Sequence[object]]) -> Sequence[float]:
        """One score a row of the model's columns; None is missing.

        Raises:
            DataError: MS-2306, the model takes no missing or infinite value, and there is one.
        """
        matrix = np.array([[np.nan if value is None else value for value in row] for row in rows], np.float64)
        scores: list[float] = self.scores(matrix).tolist()
        return scores

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """Scores of a matrix (rows, columns); a number beyond what the model's dtype holds counts as its greatest.

        Raises:
            DataError: MS-2306, the model takes no missing or infinite value, and there is one.
        """
        fitted = _fitted(matrix, self.card.dtype)
        try:
            return self.predictor.scores(fitted)
        except ValueError as error:
            if np.isfinite(fitted).all():
                raise
            raise DataError(
                "the model takes no missing and no infinite value",
                code="MS-2306",
                why="a column of the request, or a feature of its keys, is missing or infinite",
                fix="send every column, or train a model that takes missing values",
            ) from error


def _fitted(matrix: NDArray[Any], dtype: str) -> NDArray[Any]:
    """A matrix in a dtype, rows together in memory; what was finite stays finite."""
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(matrix, dtype=dtype)
    if found.dtype.itemsize < matrix.dtype.itemsize and np.isinf(found).any():
        most = np.finfo(found.dtype).max
        found = np.where(np.isfinite(matrix), np.clip(found, -most, most), found)
    return found


def load_live(version: int, entity: str, folder: Path, load: Callable[[Path], Predictor]) -> LiveModel:
    """Load a version and warm it: it has answered before it takes traffic.

    It is warmed with the rows of ``warm.npy`` in its folder, where there are any: those of its training set; else with
    zeros of its schema.

    Raises:
        ValueError: it does not answer its own rows.
    """
    card = read_card(folder)
    return warmed(LiveModel(str(version), entity, card, load(folder)), _warm_rows(folder, card))


def warmed(model: LiveModel, rows: NDArray[Any] | None = None) -> LiveModel:
    """The model when it has answered: with these rows (rows, columns), or with zeros of its schema."""
    card = model.card
    given = np.zeros((1, len(card.columns)), card.dtype) if rows is None else rows
    for count in _WARM_ROWS:
        model.scores(np.resize(given, (count, len(card.columns))))
    return model


def _warm_rows(folder: Path, card: Card) -> NDArray[Any]:
    path = folder / WARM
    if path.exists():
        rows = np.load(path, allow_pickle=False)
        if rows.ndim == 2 and rows.shape[1] == len(card.columns) and len(rows):
            return np.ascontiguousarray(rows, card.dtype)
    return np.zeros((1, len(card.columns)), card.dtype)
