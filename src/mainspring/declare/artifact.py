"""What steps and trainers hand back besides frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec

__all__ = ["File", "Model"]


class Model(msgspec.Struct, frozen=True):
    """A fitted model as a trainer returns it.

    Args:
        estimator: a fitted scikit-learn estimator or pipeline, a LightGBM or XGBoost model, or any object with
            ``predict``; a classifier's score is its ``predict_proba`` of the positive class. A `File` is a model that
            was made elsewhere: ONNX, an MLflow folder, TorchScript, an exported program, a SavedModel, a booster.
        metrics: numbers of the training itself to record with the run, by name.
        notes: words to record with the model version, by name.
    """

    estimator: object
    metrics: Mapping[str, float] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    notes: Mapping[str, str] = msgspec.field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class File:
    """A file or a folder whose content, not its path, is the input or the result of a step.

    Args:
        path: where it is on this machine. A result is copied into the object store when the step ends.
    """

    path: Path

    def __init__(self, path: str | Path) -> None:
        object.__setattr__(self, "path", Path(path))

    def text(self, encoding: str = "utf-8") -> str:
        """The file's whole text."""
        return self.path.read_text(encoding)

    def bytes(self) -> bytes:
        """The file's whole content."""
        return self.path.read_bytes()
