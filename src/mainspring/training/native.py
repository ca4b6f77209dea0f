"""A model in its own format: LightGBM's text, else skops, in bytes that are the same for equal models."""

from __future__ import annotations

import inspect
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import skops.io as skops_io
    from numpy.typing import NDArray
else:
    np, skops_io = lazy("numpy"), lazy("skops.io")

__all__ = ["NativeForm", "booster_of", "canonical_skops", "native_form", "native_scores"]

NativeForm = tuple[Literal["lightgbm", "xgboost", "skops", "pickle"], str, bytes]
"""The format, the file's name and its content."""

_SCHEMA = "schema.json"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def native_form(estimator: Any) -> NativeForm:
    """The model in its own format: a booster's, skops for scikit-learn's, and a pickle for any other object.

    Raises:
        Exception: whatever the estimator's own state raises when skops or pickle reads it.
    """
    booster = booster_of(estimator)
    if booster is not None and _is_of("xgboost", estimator):
        return "xgboost", "model.ubj", bytes(_best(booster).save_raw("ubj"))
    if booster is not None:
        return "lightgbm", "model.txt", booster.model_to_string().encode("utf-8")
    if not hasattr(estimator, "get_params"):
        return "pickle", "model.pickle", pickle.dumps(estimator, protocol=5)
    return "skops", "model.skops", canonical_skops(skops_io.dumps(estimator))


def booster_of(estimator: Any) -> Any:
    """The `lightgbm.Booster` or `xgboost.Booster` of such a model, or None."""
    if _is_of("lightgbm", estimator):
        booster = getattr(estimator, "booster_", estimator)
    elif _is_of("xgboost", estimator):
        booster = estimator.get_booster() if hasattr(estimator, "get_booster") else estimator
    else:
        return None
    return booster if type(booster).__name__ == "Booster" else None


def _is_of(library: str, estimator: Any) -> bool:
    return type(estimator).__module__.partition(".")[0] == library


def _best(booster: Any) -> Any:
    """An `xgboost.Booster` without the rounds after the best one, where training has stopped early."""
    best = booster.attr("best_iteration")
    return booster if best is None else booster[: int(best) + 1]


def native_scores(estimator: Any, values: NDArray[Any], task: Literal["binary", "regression"]) -> NDArray[np.float64]:
    """The estimator's own scores, float64 (rows,): the probability of the positive class, or the prediction."""
    if _is_of("xgboost", estimator) and not hasattr(estimator, "get_booster"):
        return np.asarray(_best(estimator).inplace_predict(values, validate_features=False), dtype=np.float64)
    if task == "binary" and hasattr(estimator, "predict_proba"):
        found = np.asarray(_asked(estimator.predict_proba, values), dtype=np.float64)
        return found[:, 1] if found.ndim == 2 else found
    return np.asarray(_asked(estimator.predict, values), dtype=np.float64).reshape(len(values), -1)[:, 0]


def _asked(predict: Callable[..., Any], values: NDArray[Any]) -> Any:
    """What a method predicts; one that takes the parameters of a call gets none."""
    more: dict[str, Any] = {"parameters": {}} if "parameters" in inspect.signature(predict).parameters else {}
    return predict(values, **more)


def canonical_skops(data: bytes) -> bytes:
    """A skops file with its numbers drawn in order.

    skops names parts by their address in memory, so that the same estimator gives other bytes each time.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    names: dict[object, int] = {}
    schema = _renumbered(json.loads(content.pop(_SCHEMA)), names)
    files = {_renamed(name, names): body for name, body in content.items()}
    files[_SCHEMA] = json.dumps(schema, separators=(",", ":")).encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), files[name], zipfile.ZIP_DEFLATED)
    return written.getvalue()


def _renumbered(node: Any, names: dict[object, int]) -> Any:
    if isinstance(node, list):
        return [_renumbered(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    found: dict[str, Any] = {}
    for key, value in node.items():  # in their order: it is the order of a dictionary's keys
        if key == "__id__" and isinstance(value, int):
            found[key] = names.setdefault(str(value), len(names) + 1)
        elif key == "file" and isinstance(value, str):
            found[key] = _renamed(value, names)
        else:
            found[key] = _renumbered(value, names)
    return found


def _renamed(file: str, names: dict[object, int]) -> str:
    stem, dot, suffix = file.rpartition(".")
    return f"{names.setdefault(stem, len(names) + 1)}{dot}{suffix}" if stem.isdigit() else file
