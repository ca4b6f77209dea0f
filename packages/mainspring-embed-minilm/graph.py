"""all-MiniLM-L6-v2 as an ONNX graph of onnxruntime's fused operators, float32."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["HEADS", "LAYERS", "WIDTH", "float_graph", "read_safetensors"]

LAYERS = 6
HEADS = 12
WIDTH = 384
_EPSILON = 1e-12
_FUSED = "com.microsoft"

Weights = dict[str, NDArray[np.float32]]


def read_safetensors(path: Path) -> Weights:
    """The float32 tensors of a safetensors file: a length (uint64), a JSON header of that length, then the numbers."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    return {
        name: np.frombuffer(
            data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]], np.float32
        ).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] == "F32"
    }


def float_graph(weights: Weights) -> onnx.ModelProto:
    """The model: int32 ``input_ids`` and ``attention_mask`` (texts, tokens) to ``embedding`` and ``token_states``."""
    build = _Building(weights)
    states = build.embedding()
    for layer in range(LAYERS):
        states = build.layer(f"encoder.layer.{layer}", states)
    build.pooled(states)
    graph = helper.make_graph(
        build.nodes,
        "all-MiniLM-L6-v2",
        [
            helper.make_tensor_value_info(name, TensorProto.INT32, ["b", "s"])
            for name in ("input_ids", "attention_mask")
        ],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["b", WIDTH]),
            helper.make_tensor_value_info("token_states", TensorProto.FLOAT, ["b", "s", WIDTH]),
        ],
        [numpy_helper.from_array(array, name) for name, array in build.constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_FUSED, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="mainspring-embed-minilm")


class _Building:
    """Nodes and constants, in the order in which they run."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}

    def embedding(self) -> str:
        """Word and position embeddings, normalised; every token is of type 0, whose row joins the positions."""
        names = {
            "words": self._weights["embeddings.word_embeddings.weight"],
            "positions": self._weights["embeddings.position_embeddings.weight"]
            + self._weights["embeddings.token_type_embeddings.weight"][0],
        }
        words, positions = (self._constant(name, array) for name, array in names.items())
        gamma, beta = self._norm("embeddings.LayerNorm")
        inputs = ["input_ids", "", words, positions, "", gamma, beta]
        return self._node("EmbedLayerNormalization", inputs, ["embedded", "unused_mask"], _FUSED, epsilon=_EPSILON)

    def layer(self, name: str, states: str) -> str:
        """One transformer layer."""
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        joined = np.concatenate([self._weights[f"{part}.weight"].T for part in parts], axis=1)
        bias = np.concatenate([self._weights[f"{part}.bias"] for part in parts])
        weight_name = self._constant(f"{name}.qkv.weight", joined)
        bias_name = self._constant(f"{name}.qkv.bias", bias)
        seen = self._node(
            "Attention",
            [states, weight_name, bias_name, "attention_mask"],
            [f"{name}.seen"],
            _FUSED,
            num_heads=HEADS,
        )
        middle = self._added(f"{name}.attention.output", seen, states)
        wide = self._times(f"{name}.intermediate.dense", middle)
        active = self._node("BiasGelu", [wide, self._bias(f"{name}.intermediate.dense")], [f"{name}.active"], _FUSED)
        return self._added(f"{name}.output", active, middle)

    def pooled(self, states: str) -> None:
        """The mean over the tokens that are not padding, at unit length: the sum has the same direction."""
        axes = self._constant("token_axis", np.array([1], np.int64))
        last = self._constant("last_axis", np.array([2], np.int64))
        mask = self._node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT)
        column = self._node("Unsqueeze", [mask, last], ["mask_column"])
        kept = self._node("Mul", [states, column], ["kept"])
        total = self._node("ReduceSum", [kept, axes], ["total"], keepdims=0)
        self._node("LpNormalization", [total], ["embedding"], axis=-1, p=2)
        self._node("Identity", [states], ["token_states"])

    def _added(self, name: str, states: str, residual: str) -> str:
        product = self._times(f"{name}.dense", states)
        inputs = [product, residual, *self._norm(f"{name}.LayerNorm"), self._bias(f"{name}.dense")]
        return self._node("SkipLayerNormalization", inputs, [f"{name}.out"], _FUSED, epsilon=_EPSILON)

    def _times(self, name: str, states: str) -> str:
        weight = self._constant(f"{name}.weight", self._weights[f"{name}.weight"].T)
        return self._node("MatMul", [states, weight], [f"{name}.product"])

    def _norm(self, name: str) -> tuple[str, str]:
        gamma, beta = (self._constant(f"{name}.{part}", self._weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return gamma, beta

    def _bias(self, name: str) -> str:
        return self._constant(f"{name}.bias", self._weights[f"{name}.bias"])

    def _constant(self, name: str, array: NDArray[np.generic]) -> str:
        self.constants[name] = np.ascontiguousarray(array)
        return name

    def _node(self, kind: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: object) -> str:
        self.nodes.append(
            helper.make_node(kind, inputs, outputs, name=outputs[0] + "_node", domain=domain, **attributes)
        )
        return outputs[0]
