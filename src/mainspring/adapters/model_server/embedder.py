"""The embedder port on a model server."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.adapters.model_server.calling import Caller, TooLate
from mainspring.adapters.model_server.problems import garbled, late, misfit, nameless, unreadable
from mainspring.adapters.model_server.settings import EmbedderSettings
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import tokenizers
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
else:
    np, tokenizers = lazy("numpy"), lazy("tokenizers")

__all__ = ["ServerEmbedder", "open_embedder"]

_PROBE = "dimensions"
_LIKELY = re.compile(r"[A-Za-z]{1,4}|[0-9]{1,2}|[^\sA-Za-z0-9]")
"""Pieces that are rather smaller than tokens are."""
_SPECIALS = 2


class ServerEmbedder:
    """Vectors from a server, made to length 1 here; threads share it.

    Args:
        settings: which model, where, and how it is asked.
        tokenizer: the JSON of its tokenizer, or empty.
        caller: speaks to the server.
    """

    normalised = True

    def __init__(self, settings: EmbedderSettings, tokenizer: str, caller: Caller) -> None:
        self.max_tokens = settings.max_tokens
        self.tokenizer = tokenizer
        self._settings = settings
        self._caller = caller
        self._whole = tokenizers.Tokenizer.from_str(tokenizer) if tokenizer else None
        if self._whole is not None:
            self._whole.no_truncation()
            self._whole.no_padding()
        self._known = settings.dims
        self._query = functools.lru_cache(settings.query_cache)(self._embed_query)
        self._pool = ThreadPoolExecutor(settings.concurrency, "embedding")

    @property
    def dims(self) -> int:
        """Length of a vector; the server is asked when the settings do not say."""
        if self._known is None:
            self._known = len(self._asked([_PROBE])[0])
        return self._known

    @property
    def id(self) -> str:
        """Model, length, and what is put before texts: not the server, which may move."""
        prefixes = f"{self._settings.query_prefix}\0{self._settings.document_prefix}"
        sign = "" if prefixes == "\0" else ":" + hashlib.sha256(prefixes.encode()).hexdigest()[:8]
        return f"{self._settings.model}:{self.dims}{sign}"

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text: exact with a tokenizer or TEI, else an estimate that is rather too great."""
        prefixed = [self._settings.document_prefix + text for text in texts]
        if self._whole is not None:
            return [len(one) for one in self._whole.encode_batch_fast(prefixed)]
        if self._settings.api == "tei":
            return [count for batch in self._batches(prefixed) for count in self._counted(batch)]
        return [len(_LIKELY.findall(text)) + _SPECIALS for text in prefixed]

    def embed_documents(self, texts: Sequence[str]) -> Floats:
        """The vectors of documents, float32 (texts, dims), in their order; several requests at once.

        Raises:
            ServiceError: MS-4061 to MS-4067.
        """
        batches = self._batches([self._settings.document_prefix + text for text in texts])
        futures = [self._pool.submit(self._embedded, batch) for batch in batches]
        try:
            found = [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
        return np.concatenate(found) if found else np.empty((0, self.dims), np.float32)

    def embed_query(self, text: str) -> Floats:
        """The vector of a query, float32 (dims,), kept for the next time.

        Raises:
            ServiceError: MS-4061 to MS-4067.
        """
        vector: Floats = self._query(text)
        return vector

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._query.cache_clear()
        self._caller.close()

    def _embed_query(self, text: str) -> Floats:
        vector: Floats = self._embedded([self._settings.query_prefix + text])[0]
        vector.setflags(write=False)
        return vector

    def _batches(self, texts: list[str]) -> list[list[str]]:
        size = self._settings.batch_texts
        return [texts[start : start + size] for start in range(0, len(texts), size)]

    def _embedded(self, batch: list[str]) -> Floats:
        rows = self._asked(batch)
        strange = [len(row) for row in rows if len(row) != self.dims]
        if strange:
            raise misfit(self._caller.where, strange[0], self.dims)
        vectors: Floats = np.stack(rows)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            raise garbled(self._caller.where, "a vector is zero, or holds what is no number")
        unit: Floats = vectors / lengths
        return unit

    def _asked(self, batch: list[str]) -> list[Floats]:
        if self._settings.api == "tei":
            rows = self._posted("/embed", {"inputs": batch, "normalize": True, "truncate": True})
        else:
            encoding = self._settings.encoding
            body = {"model": self._settings.model, "input": batch, "encoding_format": encoding}
            rows = self._in_order(self._posted("/embeddings", body), len(batch))
        if not isinstance(rows, list) or len(rows) != len(batch):
            raise garbled(self._caller.where, f"{len(batch)} vectors were asked for")
        try:
            return [_vector(row) for row in rows]
        except (TypeError, ValueError) as error:
            raise garbled(self._caller.where, f"a vector is none: {error}") from error

    def _in_order(self, answer: Any, size: int) -> list[Any]:
        """The vectors of an OpenAI answer by their index."""
        try:
            found = {entry["index"]: entry["embedding"] for entry in answer["data"]}
            return [found[place] for place in range(size)]
        except (TypeError, KeyError) as error:
            raise garbled(self._caller.where, "no list of vectors with an index each") from error

    def _counted(self, batch: list[str]) -> list[int]:
        answer = self._posted("/tokenize", {"inputs": batch, "add_special_tokens": True})
        if not isinstance(answer, list) or [type(one) for one in answer] != [list] * len(batch):
            raise garbled(self._caller.where, "tokens were asked for")
        return [len(one) for one in answer]

    def _posted(self, path: str, body: object) -> Any:
        try:
            return self._caller.post(path, body, self._settings.deadline)
        except TooLate as error:
            raise late(self._caller.where, self._settings.deadline) from error


def open_embedder(settings: EmbedderSettings, place: Path) -> ServerEmbedder:
    """The embedder; nothing is asked of the server yet.

    Raises:
        ConfigError: MS-3051, the model has no name; MS-3052, its tokenizer cannot be read.
    """
    if not settings.model:
        raise nameless()
    caller = Caller(settings.url, settings.key, settings.concurrency, settings.timeout, settings.retries)
    if settings.tokenizer is None:
        return ServerEmbedder(settings, "", caller)
    try:
        return ServerEmbedder(settings, (place.parent / settings.tokenizer).read_text("utf-8"), caller)
    except Exception as error:  # the tokenizer's errors share no base but Exception
        raise unreadable(settings.tokenizer, error) from error


def _vector(row: Any) -> Floats:
    if isinstance(row, str):
        return np.frombuffer(base64.b64decode(row, validate=True), "<f4")
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and refused as that
        found = np.array(row, np.float32)
    if found.ndim != 1:
        raise ValueError("it is no list of numbers")
    return found
