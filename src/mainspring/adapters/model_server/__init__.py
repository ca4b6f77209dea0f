"""Embedders and rerankers behind HTTP: any OpenAI-compatible server, Text Embeddings Inference, Cohere, Jina, vLLM."""

from mainspring.ports.adapter import Adapter

__all__ = ["EMBEDDER", "RERANKER"]

EMBEDDER = Adapter(
    port="embedder",
    name="model_server",
    factory="mainspring.adapters.model_server.embedder:open_embedder",
    settings="mainspring.adapters.model_server.settings:EmbedderSettings",
    schemes=("http", "https"),
    modules=("urllib3", "numpy"),
    extra="rag",
    capabilities={"exact_counts": False, "remote": True},
)

RERANKER = Adapter(
    port="reranker",
    name="model_server",
    factory="mainspring.adapters.model_server.reranker:open_reranker",
    settings="mainspring.adapters.model_server.settings:RerankerSettings",
    schemes=("http", "https"),
    modules=("urllib3",),
    extra="rag",
    capabilities={"remote": True},
)
