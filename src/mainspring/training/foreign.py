"""Models that were made elsewhere: what a trainer hands over as a file or a folder is stored as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.declare.artifact import File
from mainspring.errors import UserCodeError
from mainspring.ports.runtime import CARD, RUNS_CODE, Card, Format, Predictor, file_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Foreign", "adopt", "format_of"]

_BY_SUFFIX: dict[str, Format] = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".pt2": "exported",
    ".ubj": "xgboost",
    ".txt": "lightgbm",
    ".skops": "skops",
}
_BY_CONTENT: dict[str, Format] = {"MLmodel": "pyfunc", "saved_model.pb": "savedmodel"}


class Foreign:
    """A model that is stored already, asked through its runtime.

    Attributes:
        card: how it is stored.
    """

    def __init__(self, card: Card, predictor: Predictor) -> None:
        self.card = card
        self._scores = predictor.scores

    def predict(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """One score a row."""
        return self._scores(rows)


def format_of(path: Path) -> Format | None:
    """The format of a file by its ending, of a folder by what is in it; None when it is none that is known."""
    if path.is_dir():
        return next((kind for name, kind in _BY_CONTENT.items() if (path / name).is_file()), None)
    return _BY_SUFFIX.get(path.suffix.lower())


def adopt(file: File, card: Card, folder: Path, load: Callable[[Path], Predictor]) -> Foreign:
    """Copy a model into a model's folder, and load it from there.

    Args:
        file: what the trainer has handed over.
        card: the model's name, columns, dtype and task.
        folder: where it is stored.
        load: loads a folder.

    Raises:
        UserCodeError: MS-4342, it is no model of a known format.
        MainspringError: as its runtime raises.
    """
    kind = format_of(file.path) if file.path.exists() else None
    if kind is None:
        known = ", ".join([*(f"*{suffix}" for suffix in _BY_SUFFIX), *(f"a folder with {n}" for n in _BY_CONTENT)])
        raise UserCodeError(
            f"{file.path.name!r} is no model of a known format",
            code="MS-4342",
            why="it is not there" if not file.path.exists() else f"known: {known}",
            fix="hand over a file of one of these formats",
        )
    name = f"model{file.path.suffix.lower()}" if file.path.is_file() else "model"
    if file.path.is_dir():
        shutil.copytree(file.path, folder / name, symlinks=False)
    else:
        shutil.copyfile(file.path, folder / name)
    digest = file_digest(folder / name) if kind in RUNS_CODE else ""
    why = "it is served as it was brought along"
    found = msgspec.structs.replace(card, format=kind, file=name, digest=digest, why=why)
    (folder / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(found, order="sorted")))
    return Foreign(found, load(folder))
