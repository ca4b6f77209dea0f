"""ONNX models on onnxruntime."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="runtime",
    name="onnxruntime",
    factory="mainspring.adapters.onnxruntime.runtime:open_runtime",
    settings="mainspring.adapters.onnxruntime.settings:OnnxSettings",
    embedded=True,
    modules=("onnxruntime",),
    extra="tabular",
    order=1,
    capabilities={"formats": ("onnx",), "platform": "onnxruntime_onnx"},
)
