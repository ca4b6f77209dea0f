"""Whether the server answers with what is expected."""

from __future__ import annotations

from mainspring.ports.embedder import Embedder
from mainspring.ports.reranker import Reranker

__all__ = ["health"]


def health(port: Embedder | Reranker) -> dict[str, object]:
    """Ask it for something small."""
    if isinstance(port, Embedder):
        return {"model": port.id, "embeds": len(port.embed_documents(["Is anybody there?"])[0]) == port.dims}
    scores = port.rerank("Is anybody there?", ["Yes.", "The wing is thin."])
    return {"model": port.id, "reranks": scores is not None and len(scores) == 2}
