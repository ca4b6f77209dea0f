"""The reranker port on a model server."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mainspring.adapters.model_server.calling import Caller, TooLate
from mainspring.adapters.model_server.problems import garbled
from mainspring.adapters.model_server.settings import RerankerSettings

__all__ = ["ServerReranker", "open_reranker"]

_PATHS = {"tei": "/rerank", "cohere": "/v2/rerank", "jina": "/v1/rerank"}


class ServerReranker:
    """Scores from a server; threads share it.

    Args:
        settings: which model, where, how long.
        caller: speaks to the server.
    """

    def __init__(self, settings: RerankerSettings, caller: Caller) -> None:
        self.id = settings.model or f"{settings.api} at {caller.where}"
        self._settings = settings
        self._caller = caller

    def rerank(self, query: str, texts: Sequence[str], deadline: float | None = None) -> list[float] | None:
        """A score for each text in their order, or None when the time is over.

        Raises:
            ServiceError: MS-4061 to MS-4066.
        """
        end = time.monotonic() + (self._settings.timeout if deadline is None else deadline)
        size = self._settings.batch_texts
        scores: list[float] = []
        for start in range(0, len(texts), size):
            batch = list(texts[start : start + size])
            try:
                answer = self._caller.post(_PATHS[self._settings.api], self._body(query, batch), end - time.monotonic())
            except TooLate:
                return None
            scores += self._scores(answer, len(batch))
        return scores

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()

    def _body(self, query: str, batch: list[str]) -> dict[str, object]:
        if self._settings.api == "tei":
            return {"query": query, "texts": batch, "raw_scores": True, "truncate": True}
        body: dict[str, object] = {"query": query, "documents": batch, "top_n": len(batch)}
        if self._settings.model:
            body["model"] = self._settings.model
        if self._settings.api == "jina":
            body["return_documents"] = False
        return body

    def _scores(self, answer: Any, size: int) -> list[float]:
        """The scores in the order of the request; each text must have one."""
        name = "score" if self._settings.api == "tei" else "relevance_score"
        try:
            entries = answer if self._settings.api == "tei" else answer["results"]
            found = {int(entry["index"]): float(entry[name]) for entry in entries}
            scores = [found[place] for place in range(size)]
        except (TypeError, KeyError, ValueError) as error:
            raise garbled(self._caller.where, f"no {name} for each of {size} texts") from error
        if not all(map(math.isfinite, scores)):
            raise garbled(self._caller.where, "a score is no number")
        return scores


def open_reranker(settings: RerankerSettings, place: Path) -> ServerReranker:
    """The reranker; nothing is asked of the server yet."""
    return ServerReranker(settings, Caller(settings.url, settings.key, 8, settings.timeout, settings.retries))
