"""What the GPUs that a profile names carry of each declared language model: ``[capacity.NAME]`` put into numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn, cast

import msgspec

from mainspring.config.settings import Setting, Settings
from mainspring.declare.data import did_you_mean
from mainspring.errors import ConfigError
from mainspring.llm.capacity import GIB, GPUS, UTILISATION, Capacity, Gpu, Model, capacity, model_of, prefill_rate

__all__ = ["BYTES", "Sizing", "gpu_named", "sizings"]

BYTES: Mapping[str, float] = {"bf16": 2.0, "fp8": 1.0, "int4": 0.5625}
"""Bytes of one number of weights or cache; those of 4 bits have a 16-bit scale for every 32 of them."""

_SECTION = "capacity"
_STORED: Mapping[object, int] = {"bfloat16": 2, "float16": 2, "float32": 4}
_EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts")


class Sizing(msgspec.Struct, frozen=True):
    """One declared language model on the GPUs of the active profile.

    Attributes:
        llm: its declared name.
        gpu: each GPU's name.
        gpus: how many share the model by tensor parallelism.
        weights: what a weight is stored as: ``bf16``, ``fp8``, ``int4``.
        cache: what a number of the cache is stored as.
        length: tokens of a sequence, prompt and answer together.
        memory: bytes of a GPU that the engine may take.
        runtime: bytes of a GPU for activations, graphs and libraries.
        found: what it carries.
        prefill_ceiling: tokens of prompts a second that no engine can exceed.
        sequences: how many it would hold at once with its weights stored as each other way.
        notes: what somebody should know.
    """

    llm: str
    gpu: str
    gpus: int
    weights: str
    cache: str
    length: int
    memory: float
    runtime: float
    found: Capacity
    prefill_ceiling: float
    sequences: Mapping[str, float]
    notes: tuple[str, ...] = ()


def sizings(settings: Settings, declared: Sequence[str]) -> tuple[Sizing, ...]:
    """The capacity of every language model for which the active profile has a ``[capacity.NAME]``.

    Args:
        settings: of the active profile.
        declared: the names of the app's language models.

    Raises:
        ConfigError: MS-3085, a section is for no declared model; MS-3086, something is not said; MS-3087, the GPU is
            unknown; MS-3088, the model's file cannot be read.
    """
    prefix = f"{_SECTION}."
    names = dict.fromkeys(key.split(".")[1] for key in settings.values if key.startswith(prefix))
    for name in names:
        if name not in declared:
            raise ConfigError(
                f"there is a capacity of {name!r}, which is no declared language model",
                code="MS-3085",
                origin=next(iter(settings.section(f"{prefix}{name}").values())).origin,
                fix=did_you_mean(name, declared) if declared else f'declare it: app.llm("{name}")',
            )
    return tuple(_sizing(name, settings) for name in names)


def gpu_named(name: str, origin: str = "") -> Gpu:
    """The known GPU of that name; capitals, blanks and dashes do not count: ``h100-sxm``.

    Raises:
        ConfigError: MS-3087, none is.
    """
    plain = {_plain(known): gpu for known, gpu in GPUS.items()}
    gpu = plain.get(_plain(name))
    if gpu is None:
        chips = [word for word in re.findall(r"[a-z0-9]+", name.lower()) if re.fullmatch(r"[a-z]+\d+[a-z]?", word)]
        near = [known for known in GPUS if any(_plain(known).startswith(chip) for chip in chips)]
        raise ConfigError(
            f"GPU {name!r} is unknown",
            code="MS-3087",
            why=f"known: {', '.join(GPUS)}",
            origin=origin,
            fix=f"did you mean {' or '.join(map(repr, near))}?" if near else did_you_mean(name.upper(), GPUS),
        )
    return gpu


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _sizing(name: str, settings: Settings) -> Sizing:
    section = settings.section(f"{_SECTION}.{name}")

    def given(key: str, default: object) -> object:
        return section[key].value if key in section else default

    def needed(key: str, why: str) -> Setting:
        return section[key] if key in section else _not_said(name, key, section, why)

    gpu_said = needed("gpu", "the memory and the bandwidth are the GPU's")
    gpu = gpu_named(str(gpu_said.value), gpu_said.origin)
    config_said = needed("config", "layers and heads are in the model's config.json")
    path = settings.project / str(config_said.value)
    config = _read(path, config_said)
    params = float(cast(float, given("params", 0.0))) or _counted(path, config)
    if not params:
        _not_said(name, "params", section, "config.json does not tell how many weights there are")
    length = cast(int, given("length", _text(config).get("max_position_embeddings")))
    if not isinstance(length, int) or length < 1:
        _not_said(name, "length", section, "config.json does not tell how long a sequence may be")
    weights, cache = str(given("weights", "bf16")), str(given("cache", "bf16"))
    model = msgspec.structs.replace(
        _model(config, params, config_said), weight_bytes=BYTES[weights], kv_bytes=BYTES[cache],
        active=float(cast(float, given("active", 0.0))),
    )  # fmt: skip
    gpus, share = cast(int, given("gpus", 1)), float(cast(float, given("utilisation", UTILISATION)))
    runtime = float(cast(float, given("runtime", 2.0))) * GIB

    def carried(one: Model) -> Capacity:
        return capacity(one, gpu, length, tp=gpus, runtime=runtime, utilisation=share)

    others = {
        kind: msgspec.structs.replace(model, weight_bytes=size) for kind, size in BYTES.items() if kind != weights
    }
    return Sizing(
        llm=name,
        gpu=gpu.name,
        gpus=gpus,
        weights=weights,
        cache=cache,
        length=length,
        memory=gpu.memory * share,
        runtime=runtime,
        found=carried(model),
        prefill_ceiling=prefill_rate(model, gpu, tp=gpus, mfu=1.0),
        sequences={kind: carried(one).sequences for kind, one in others.items()},
        notes=_notes(name, config, model, "runtime" in section),
    )


def _not_said(name: str, key: str, section: Mapping[str, Setting], why: str) -> NoReturn:
    examples = {"gpu": '"H100 SXM"', "config": '"models/config.json"', "params": "8.03e9", "length": "8192"}
    raise ConfigError(
        f"capacity.{name}.{key} is not said",
        code="MS-3086",
        why=why,
        origin=next(iter(section.values())).origin,
        fix=f"capacity.{name}.{key} = {examples[key]}",
    )


def _read(path: Path, said: Setting) -> Mapping[str, object]:
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise _unreadable(said, str(error.strerror)) from error
    except ValueError as error:
        raise _unreadable(said, f"it is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise _unreadable(said, "it is no JSON object")
    return config


def _unreadable(said: Setting, why: str) -> ConfigError:
    return ConfigError(
        f"{said.key} = {said.value!r} describes no model",
        code="MS-3088",
        why=why,
        origin=said.origin,
        fix="name the config.json that lies beside the model's weights, relative to the project",
    )


def _model(config: Mapping[str, object], params: float, said: Setting) -> Model:
    try:
        return model_of(config, params)
    except ValueError as error:
        raise _unreadable(said, str(error)) from error


def _text(config: Mapping[str, object]) -> Mapping[str, object]:
    """The part of a model with several that makes text."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _counted(path: Path, config: Mapping[str, object]) -> float:
    """How many weights lie beside the file, by the index of safetensors; 0 when that is not known."""
    dtype = config.get("dtype") or config.get("torch_dtype") or _text(config).get("torch_dtype")
    size = _STORED.get(dtype)
    if size is None or "quantization_config" in config:
        return 0.0
    try:
        total = json.loads((path.parent / "model.safetensors.index.json").read_bytes())["metadata"]["total_size"]
        return float(total) / size
    except (OSError, ValueError, TypeError, KeyError):
        return 0.0


def _notes(name: str, config: Mapping[str, object], model: Model, measured: bool) -> tuple[str, ...]:
    notes = []
    if not model.active and any(cast(int, _text(config).get(key) or 0) > 1 for key in _EXPERTS):
        notes.append(f"it is a mixture of experts: capacity.{name}.active is how many weights one token passes through")
    if not measured:
        notes.append(f"2 GiB for the engine itself are assumed; 0.83 to 9.37 were seen: capacity.{name}.runtime")
    return tuple(notes)
