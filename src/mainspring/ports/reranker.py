"""Rerankers: how well each text answers a query, read together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

__all__ = ["Reranker"]


@runtime_checkable
class Reranker(Protocol):
    """A cross-encoder; safe to call from several threads."""

    @property
    def id(self) -> str:
        """Names the model."""

    def rerank(self, query: str, texts: Sequence[str], deadline: float | None = None) -> list[float] | None:
        """A score for each text, in the order of the texts, greater is better; comparable within one call only.

        Args:
            query: what is asked.
            texts: the candidates.
            deadline: seconds from now; None is the adapter's own timeout.

        Returns:
            The scores, or None when the deadline has passed: the caller keeps the order that it has.

        Raises:
            ServiceError: MS-4061 to MS-4066, the model does not answer as it should.
        """

    def close(self) -> None:
        """Let go of its connections."""
