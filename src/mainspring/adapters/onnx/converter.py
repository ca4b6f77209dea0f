"""The converter port: scikit-learn through skl2onnx, LightGBM through onnxmltools."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mainspring.adapters.onnx.problems import reason
from mainspring.adapters.onnx.settings import ConverterSettings
from mainspring.lazy import lazy
from mainspring.ports.converter import Converted

if TYPE_CHECKING:
    import onnxmltools
    import skl2onnx
    from onnxmltools.convert.common import data_types as ml_types
    from skl2onnx.common import data_types as skl_types
else:
    onnxmltools, skl2onnx = lazy("onnxmltools"), lazy("skl2onnx")
    ml_types, skl_types = lazy("onnxmltools.convert.common.data_types"), lazy("skl2onnx.common.data_types")

__all__ = ["OnnxConverter", "open_converter"]


class OnnxConverter:
    """Turns fitted estimators into ONNX with one float32 input called ``input``."""

    def __init__(self, settings: ConverterSettings) -> None:
        self._opset = settings.opset

    def convert(self, estimator: object, columns: int, task: Literal["binary", "regression"]) -> Converted | str:
        """The estimator as ONNX, or why it cannot be converted."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the converters warn about themselves at every call
                model = self._converted(estimator, columns)
        except Exception as error:  # converters raise whatever their visitors meet
            return reason(error)
        names = [output.name for output in model.graph.output]
        wanted = [name for name in names if "prob" in name] if task == "binary" else names[:1]
        if not wanted:
            return f"the converted model gives {', '.join(names)} and no probabilities"
        return Converted(model.SerializeToString(), wanted[0])

    def _converted(self, estimator: Any, columns: int) -> Any:
        if type(estimator).__module__.startswith("lightgbm"):
            shape = [("input", ml_types.FloatTensorType([None, columns]))]
            return onnxmltools.convert_lightgbm(
                estimator, initial_types=shape, zipmap=False, target_opset=min(self._opset, 15)
            )
        return skl2onnx.to_onnx(
            estimator,
            initial_types=[("input", skl_types.FloatTensorType([None, columns]))],
            options={"zipmap": False} if hasattr(estimator, "predict_proba") else None,
            target_opset={"": self._opset, "ai.onnx.ml": 3},
        )


def open_converter(settings: ConverterSettings, place: Path) -> OnnxConverter:
    """The converter."""
    return OnnxConverter(settings)
