"""The embedder port on onnxruntime: from files to vectors, inside the process."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.adapters.onnxruntime.cores import cores
from mainspring.adapters.onnxruntime.problems import broken_embedder, unknown_embedder
from mainspring.adapters.onnxruntime.settings import EmbedderSettings
from mainspring.lazy import lazy
from mainspring.ports.embedder import EMBEDDERS, EmbedderFiles

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime as ort
    import tokenizers
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
else:
    np, ort, tokenizers = lazy("numpy"), lazy("onnxruntime"), lazy("tokenizers")

__all__ = ["OnnxEmbedder", "open_embedder"]

_WINDOW = 4096
_PADDINGS = ("[PAD]", "<pad>")
_INTEGERS = {"tensor(int32)": "int32", "tensor(int64)": "int64"}


class OnnxEmbedder:
    """A sentence embedder from an ONNX graph and a tokenizer; threads may share it, a forked child may not.

    A graph with 8-bit weights scales its activations by the whole batch, so a text's vector depends a little on what
    it is batched with (cosine about .995): compare vectors with a tolerance.

    Args:
        files: the model.
        settings: batches, threads, how many queries are kept.

    Raises:
        StoreError: MS-4262, the files are damaged or do not fit each other.
    """

    def __init__(self, files: EmbedderFiles, settings: EmbedderSettings) -> None:
        self.id = files.id
        self.dims = files.dims
        self.max_tokens = files.max_tokens
        self.normalised = files.normalised
        self._files = files
        self._settings = settings
        try:
            self.tokenizer = _limitless(Path(files.tokenizer).read_text("utf-8"))
            self._whole = tokenizers.Tokenizer.from_str(self.tokenizer)
            self._cut = tokenizers.Tokenizer.from_str(self.tokenizer)
            self._cut.enable_truncation(files.max_tokens)
            self._session = _session(files.onnx, settings.threads or cores())
            self._inputs = {node.name: _INTEGERS[node.type] for node in self._session.get_inputs()}
            self._output = self._session.get_outputs()[0].name
        except Exception as error:  # the libraries' errors share no base but Exception
            raise broken_embedder(files.id, error) from error
        self._padding = next((found for name in _PADDINGS if (found := self._cut.token_to_id(name)) is not None), 0)
        self._query = functools.lru_cache(settings.query_cache)(self._embed_query)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a document, nothing cut."""
        encoded = self._whole.encode_batch_fast([self._files.document_prefix + text for text in texts])
        return [len(one) for one in encoded]

    def embed_documents(self, texts: Sequence[str]) -> Floats:
        """The vectors of documents, float32 (texts, dims), in their order."""
        vectors = np.empty((len(texts), self.dims), np.float32)
        for start in range(0, len(texts), _WINDOW):
            window = texts[start : start + _WINDOW]
            vectors[start : start + len(window)] = self._embedded([self._files.document_prefix + one for one in window])
        return vectors

    def embed_query(self, text: str) -> Floats:
        """The vector of a query, float32 (dims,), kept for the next time."""
        vector: Floats = self._query(text)
        return vector

    def close(self) -> None:
        """Forget the kept queries; the model goes with the last that holds the embedder."""
        self._query.cache_clear()

    def _embed_query(self, text: str) -> Floats:
        vector: Floats = self._embedded([self._files.query_prefix + text])[0]
        vector.setflags(write=False)
        return vector

    def _embedded(self, texts: list[str]) -> Floats:
        rows = [one.ids for one in self._cut.encode_batch_fast(texts)]
        vectors = np.empty((len(rows), self.dims), np.float32)
        for batch in _batches([len(row) for row in rows], self._settings.batch_tokens, self._settings.batch_texts):
            vectors[batch] = self._run([rows[place] for place in batch])
        return vectors

    def _run(self, rows: list[list[int]]) -> Floats:
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self._padding, np.int64)
        mask = np.zeros((len(rows), longest), np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
            mask[place, : len(row)] = 1
        known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        feed = {name: known[name].astype(kind) for name, kind in self._inputs.items()}
        (found,) = self._session.run([self._output], feed)
        return self._pooled(found, mask)

    def _pooled(self, found: Floats, mask: NDArray[np.int64]) -> Floats:
        if self._files.pooling == "graph":
            return found
        column = mask[:, :, None].astype(np.float32)
        vectors: Floats = found[:, 0] if self._files.pooling == "cls" else (found * column).sum(1) / column.sum(1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if self.normalised else vectors


def open_embedder(settings: EmbedderSettings, place: Path) -> OnnxEmbedder:
    """The model that the settings name, or the only one that is installed.

    Raises:
        ConfigError: MS-3050, it is not installed, or several are and none is named.
        StoreError: MS-4262, its files are damaged.
    """
    if settings.path is not None:
        return OnnxEmbedder(_own(place.parent / settings.path), settings)
    points = {point.name: point for point in importlib.metadata.entry_points(group=EMBEDDERS)}
    name = settings.model or (next(iter(points)) if len(points) == 1 else None)
    if name not in points:
        raise unknown_embedder(settings.model, list(points))
    try:
        files: EmbedderFiles = points[name].load()
    except Exception as error:  # a package that is half there may raise anything
        raise broken_embedder(name, error) from error
    return OnnxEmbedder(files, settings)


def _own(folder: Path) -> EmbedderFiles:
    """The files that ``embedder.json`` of a folder describes; their paths are relative to it."""
    try:
        files = msgspec.json.decode((folder / "embedder.json").read_bytes(), type=EmbedderFiles)
    except (OSError, msgspec.MsgspecError) as error:
        raise broken_embedder(folder.name, error) from error
    return msgspec.structs.replace(files, onnx=str(folder / files.onnx), tokenizer=str(folder / files.tokenizer))


def _limitless(tokenizer: str) -> str:
    """The tokenizer's JSON without truncation and padding, which would hide what is cut."""
    decoded = msgspec.json.decode(tokenizer, type=dict[str, Any])
    return msgspec.json.encode(decoded | {"truncation": None, "padding": None}).decode()


def _session(path: str, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _batches(lengths: list[int], tokens: int, texts: int) -> Iterator[list[int]]:
    """Places of texts of similar length, longest first, as many as fit with padding; each batch has one at least."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and (len(batch) >= texts or (len(batch) + 1) * lengths[batch[0]] > tokens):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
