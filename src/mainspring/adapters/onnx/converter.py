"""The converter port: scikit-learn through skl2onnx, LightGBM through onnxmltools, also as a pipeline's last step."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mainspring.adapters.onnx.graph import keep_output, make_exact
from mainspring.adapters.onnx.problems import reason
from mainspring.adapters.onnx.settings import ConverterSettings
from mainspring.adapters.onnx.trees import trees_of
from mainspring.lazy import lazy
from mainspring.ports.converter import Converted

if TYPE_CHECKING:
    import lightgbm
    import onnxmltools
    import onnxmltools.convert.lightgbm.operator_converters.LightGbm as ml_lightgbm  # noqa: N813 - a module
    import skl2onnx
    from onnxmltools.convert.common import data_types as ml_types
    from skl2onnx.common import data_types as skl_types
    from skl2onnx.common import shape_calculator as skl_shapes
else:
    lightgbm, onnxmltools, skl2onnx = lazy("lightgbm"), lazy("onnxmltools"), lazy("skl2onnx")
    ml_types, skl_types = lazy("onnxmltools.convert.common.data_types"), lazy("skl2onnx.common.data_types")
    ml_lightgbm = lazy("onnxmltools.convert.lightgbm.operator_converters.LightGbm")
    skl_shapes = lazy("skl2onnx.common.shape_calculator")

__all__ = ["OnnxConverter", "open_converter"]

_ML_OPSET = 3
_BOOSTED_OPSET = 15  # the newest that onnxmltools writes for LightGBM and XGBoost


class OnnxConverter:
    """Turns fitted estimators into ONNX with one float32 input called ``input``."""

    def __init__(self, settings: ConverterSettings) -> None:
        self._opset = settings.opset

    def convert(self, estimator: object, columns: int, task: Literal["binary", "regression"]) -> Converted | str:
        """The estimator as ONNX, or why it cannot be converted.

        The same estimator gives the same bytes each time.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the converters warn about themselves at every call
                model = self._converted(estimator, columns)
                output = _output(model, task)
                if output is None:
                    names = ", ".join(item.name for item in model.graph.output)
                    return f"the converted model gives {names} and no probabilities"
                keep_output(model, output)
                make_exact(model, trees_of(estimator))
                return Converted(model.SerializeToString(deterministic=True), output)
        except Exception as error:  # converters raise whatever their visitors meet
            return reason(error)

    def _converted(self, estimator: Any, columns: int) -> Any:
        if type(estimator).__module__.startswith("lightgbm"):
            return onnxmltools.convert_lightgbm(
                estimator,
                initial_types=[("input", ml_types.FloatTensorType([None, columns]))],
                zipmap=False,
                target_opset=min(self._opset, _BOOSTED_OPSET),
            )
        if type(estimator).__module__.startswith("xgboost"):
            return onnxmltools.convert_xgboost(
                estimator,
                initial_types=[("input", ml_types.FloatTensorType([None, columns]))],
                target_opset=min(self._opset, _BOOSTED_OPSET),
            )
        if _holds_lightgbm(estimator):
            _teach_lightgbm()
        return skl2onnx.to_onnx(
            estimator,
            initial_types=[("input", skl_types.FloatTensorType([None, columns]))],
            options={"zipmap": False} if hasattr(estimator, "predict_proba") else None,
            target_opset={"": self._opset, "ai.onnx.ml": _ML_OPSET},
        )


def _output(model: Any, task: Literal["binary", "regression"]) -> str | None:
    names = [str(output.name) for output in model.graph.output]
    wanted = [name for name in names if "prob" in name] if task == "binary" else names
    return wanted[0] if wanted else None


def _holds_lightgbm(estimator: Any) -> bool:
    return any(type(step).__module__.startswith("lightgbm") for _, step in getattr(estimator, "steps", ()))


def _teach_lightgbm() -> None:
    """Let skl2onnx convert LightGBM's estimators inside a pipeline; doing it again changes nothing."""
    skl2onnx.update_registered_converter(
        lightgbm.LGBMClassifier,
        "LightGbmLGBMClassifier",
        skl_shapes.calculate_linear_classifier_output_shapes,
        ml_lightgbm.convert_lightgbm,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )
    skl2onnx.update_registered_converter(
        lightgbm.LGBMRegressor,
        "LightGbmLGBMRegressor",
        skl_shapes.calculate_linear_regressor_output_shapes,
        ml_lightgbm.convert_lightgbm,
        options={"split": None},
    )


def open_converter(settings: ConverterSettings, place: Path) -> OnnxConverter:
    """The converter."""
    return OnnxConverter(settings)
