"""ONNX models on onnxruntime: a runtime of tabular models, and an embedder."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER", "EMBEDDER"]

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

EMBEDDER = Adapter(
    port="embedder",
    name="onnxruntime",
    factory="mainspring.adapters.onnxruntime.embedder:open_embedder",
    settings="mainspring.adapters.onnxruntime.settings:EmbedderSettings",
    embedded=True,
    modules=("onnxruntime", "tokenizers", "numpy"),
    extra="rag",
    capabilities={"exact_counts": True, "remote": False},
)
