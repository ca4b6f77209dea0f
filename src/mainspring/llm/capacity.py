"""What one GPU, or several by tensor parallelism, can carry of a language model: arithmetic on published figures.

Everything is per GPU and in bytes, tokens and seconds; GiB are 2**30. The memory law of decoding (each step reads the
active weights and all that is kept of each sequence) and the law of prefill (two operations a weight and token) are
those of Pope et al., Efficiently Scaling Transformer Inference, 2022; blocks of 16 tokens are those of PagedAttention
(Kwon et al., 2023). On processors without a GPU small models break these laws: measure them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import msgspec

__all__ = [
    "GIB",
    "GPUS",
    "Capacity",
    "Gpu",
    "Model",
    "capacity",
    "crossover",
    "decode_ceiling",
    "decode_step",
    "kv_bytes",
    "kv_bytes_per_token",
    "model_of",
    "pool_bytes",
    "pool_tokens",
    "prefill_rate",
    "weight_bytes",
]

GIB = 1 << 30
BLOCK = 16
"""Tokens of a block of the cache."""

MBU = 0.70
"""Share of the memory's bandwidth that decoding reaches."""

MFU = 0.45
"""Share of the arithmetic that prefill reaches."""

UTILISATION = 0.90
"""Share of the memory that the engine may take."""


class Gpu(msgspec.Struct, frozen=True):
    """A GPU by its data sheet; its memory as the driver reports it.

    Attributes:
        name: its name.
        memory: bytes.
        bandwidth: bytes a second.
        flops: dense BF16 operations a second.
    """

    name: str
    memory: float
    bandwidth: float
    flops: float


GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("H100 SXM", 80e9, 3.35e12, 989e12),
        Gpu("H200", 141e9, 4.8e12, 989e12),
        Gpu("A100-80", 80e9, 2.039e12, 312e12),
        Gpu("A100-40", 39.50 * GIB, 1.555e12, 312e12),
        Gpu("L4", 22.49 * GIB, 0.3e12, 121e12),
        Gpu("L40S", 48e9, 0.864e12, 362e12),
    )
}
"""Known GPUs by name."""


class Model(msgspec.Struct, frozen=True):
    """A transformer, as far as its memory depends on it.

    Attributes:
        params: all weights.
        layers: that attend.
        kv_heads: heads of keys and values.
        head_dim: numbers of one head.
        weight_bytes: bytes of one weight: 2 for BF16, 1 for FP8, about 0.56 for 4 bits with scales.
        kv_bytes: bytes of one number of the cache.
        active: weights that one token passes through; 0 is all of them (a mixture of experts has fewer).
        window: tokens that a layer with a sliding window holds; 0 for no such layers.
        windowed: how many layers have the window.
        latent: for latent attention the rank of its keys and values with the rotated part's width; 0 for none.
    """

    params: float
    layers: int
    kv_heads: int
    head_dim: int
    weight_bytes: float = 2.0
    kv_bytes: float = 2.0
    active: float = 0.0
    window: int = 0
    windowed: int = 0
    latent: int = 0

    @property
    def active_params(self) -> float:
        """Weights that one token passes through."""
        return self.active or self.params


def weight_bytes(model: Model, tp: int = 1) -> float:
    """Bytes of the weights on each of `tp` GPUs."""
    return model.params * model.weight_bytes / tp


def kv_bytes_per_token(model: Model, tp: int = 1) -> float:
    """Bytes that one token of one sequence keeps on each GPU, sliding windows left aside.

    Heads are shared out over the GPUs, but each has one at least; latent attention is not shared out at all.
    """
    return model.layers * _kv_per_layer(model, tp)


def _kv_per_layer(model: Model, tp: int) -> float:
    if model.latent:
        return model.latent * model.kv_bytes
    return 2 * max(1, math.ceil(model.kv_heads / tp)) * model.head_dim * model.kv_bytes


def kv_bytes(model: Model, length: int, tp: int = 1) -> float:
    """Bytes that one sequence of `length` tokens keeps on each GPU; windowed layers hold their window at most."""
    held = min(model.window, length) if model.window else length
    return _kv_per_layer(model, tp) * ((model.layers - model.windowed) * length + model.windowed * held)


def pool_bytes(
    model: Model, gpu: Gpu, *, tp: int = 1, runtime: float = 2.0 * GIB, utilisation: float = UTILISATION
) -> float:
    """Bytes that are left for the cache on each GPU; none or fewer when the model does not fit.

    Args:
        model: the model.
        gpu: each GPU.
        tp: how many.
        runtime: bytes of activations, graphs and libraries; 0.83 to 9.37 GiB were seen: measure yours.
        utilisation: share of the memory that the engine may take.
    """
    return gpu.memory * utilisation - weight_bytes(model, tp) - runtime


def pool_tokens(pool: float, per_token: float) -> int:
    """Tokens that a pool of so many bytes holds, in whole blocks of 16."""
    return max(0, math.floor(pool / (BLOCK * per_token))) * BLOCK


def decode_step(model: Model, gpu: Gpu, batch: int, length: int, *, tp: int = 1, mbu: float = MBU) -> float:
    """Seconds of one step of `batch` sequences of `length` tokens: of what is read, or beyond the crossover done."""
    read = model.active_params * model.weight_bytes / tp + batch * kv_bytes(model, length, tp)
    done = batch * 2 * model.active_params
    return max(read / (gpu.bandwidth * mbu), done / (gpu.flops * MFU * tp) if batch > crossover(model, gpu) else 0.0)


def decode_ceiling(model: Model, gpu: Gpu, *, tp: int = 1) -> float:
    """Tokens a second of one stream that no engine can exceed: the bandwidth over the active weights."""
    return gpu.bandwidth / (model.active_params * model.weight_bytes / tp)


def prefill_rate(model: Model, gpu: Gpu, *, tp: int = 1, mfu: float = MFU) -> float:
    """Tokens of prompts a second; with ``mfu=1`` the ceiling."""
    return mfu * gpu.flops * tp / (2 * model.active_params)


def crossover(model: Model, gpu: Gpu) -> float:
    """The batch beyond which arithmetic, not memory, decides."""
    return gpu.flops / gpu.bandwidth * model.weight_bytes / 2


class Capacity(msgspec.Struct, frozen=True):
    """What a deployment can carry.

    Attributes:
        fits: whether a sequence of the length fits beside the weights.
        weights: bytes of the weights on each GPU.
        kv_per_token: bytes that a token keeps on each GPU.
        pool: bytes for the cache on each GPU.
        tokens: that the cache holds.
        sequences: of the length that it holds at once.
        ceiling: tokens a second of one stream that no engine can exceed.
        single: tokens a second of one stream of the length, as expected.
        saturated: tokens a second of all streams together when the cache is full, as expected.
        step: seconds of a step then: the time between two tokens of a stream.
        prefill: tokens of prompts a second, as expected.
        crossover: the batch beyond which arithmetic decides.
    """

    fits: bool
    weights: float
    kv_per_token: float
    pool: float
    tokens: int
    sequences: float
    ceiling: float
    single: float
    saturated: float
    step: float
    prefill: float
    crossover: float


def capacity(
    model: Model,
    gpu: Gpu,
    length: int,
    *,
    tp: int = 1,
    runtime: float = 2.0 * GIB,
    utilisation: float = UTILISATION,
) -> Capacity:
    """What so many GPUs carry of a model, for sequences of `length` tokens, prompt and answer together."""
    pool = pool_bytes(model, gpu, tp=tp, runtime=runtime, utilisation=utilisation)
    tokens = pool_tokens(pool, kv_bytes(model, length, tp) / length)
    sequences = tokens / length
    streams = max(1, math.floor(sequences))
    step = decode_step(model, gpu, streams, length, tp=tp)
    return Capacity(
        fits=sequences >= 1,
        weights=weight_bytes(model, tp),
        kv_per_token=kv_bytes_per_token(model, tp),
        pool=pool,
        tokens=tokens,
        sequences=sequences,
        ceiling=decode_ceiling(model, gpu, tp=tp),
        single=1 / decode_step(model, gpu, 1, length, tp=tp),
        saturated=streams / step,
        step=step,
        prefill=prefill_rate(model, gpu, tp=tp),
        crossover=crossover(model, gpu),
    )


def model_of(config: Mapping[str, object], params: float, *, weight_bytes: float = 2.0, kv_bytes: float = 2.0) -> Model:
    """The model that a ``config.json`` of the Hugging Face kind describes.

    Args:
        config: its content; of a model with several parts, that of ``text_config``.
        params: all weights; the file does not tell.
        weight_bytes: bytes of one weight.
        kv_bytes: bytes of one number of the cache.

    Raises:
        ValueError: it describes no transformer.
    """
    inner = config.get("text_config")
    config = inner if isinstance(inner, Mapping) else config
    layers, heads = _whole(config, "num_hidden_layers"), _whole(config, "num_attention_heads")
    if not layers or not heads:
        raise ValueError("it names neither num_hidden_layers nor num_attention_heads")
    latent = _whole(config, "kv_lora_rank")
    window, windowed = _window(config, layers)
    return Model(
        params=params,
        layers=layers,
        kv_heads=_whole(config, "num_key_value_heads") or heads,
        head_dim=_whole(config, "head_dim") or _whole(config, "hidden_size") // heads,
        weight_bytes=weight_bytes,
        kv_bytes=kv_bytes,
        window=window,
        windowed=windowed,
        latent=latent + _whole(config, "qk_rope_head_dim") if latent else 0,
    )


def _window(config: Mapping[str, object], layers: int) -> tuple[int, int]:
    """The sliding window and how many layers have it."""
    window = _whole(config, "sliding_window")
    if not window or config.get("use_sliding_window") is False:
        return 0, 0
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        windowed = sum(kind == "sliding_attention" for kind in kinds)
        return (window, windowed) if windowed else (0, 0)
    return window, layers


def _whole(config: Mapping[str, object], key: str) -> int:
    return cast(int, config.get(key)) if isinstance(config.get(key), int) else 0
