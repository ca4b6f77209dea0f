"""Mainspring's default embedder as data: all-MiniLM-L6-v2, int8 ONNX, 384 dimensions, English, Apache-2.0."""

from pathlib import Path

from mainspring.ports.embedder import EmbedderFiles
from mainspring_embed_minilm.built import MODEL_DIGEST, TOKENIZER_DIGEST

__all__ = ["FILES"]

_HERE = Path(__file__).parent

FILES = EmbedderFiles(
    id=f"all-MiniLM-L6-v2-int8@{MODEL_DIGEST[:8]}{TOKENIZER_DIGEST[:8]}",
    onnx=str(_HERE / "model.onnx"),
    tokenizer=str(_HERE / "tokenizer.json"),
    pooling="graph",
    query_prefix="",
    document_prefix="",
    dims=384,
    max_tokens=256,
    normalised=True,
    licence="Apache-2.0",
)
