"""Estimators into ONNX, by skl2onnx and onnxmltools."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="converter",
    name="onnx",
    factory="mainspring.adapters.onnx.converter:open_converter",
    settings="mainspring.adapters.onnx.settings:ConverterSettings",
    embedded=True,
    modules=("skl2onnx", "onnxmltools", "onnx"),
    extra="tabular",
    capabilities={"formats": ("onnx",), "dtypes": ("float32",)},
)
