"""How to get one locally: any server of one of the protocols."""

__all__ = ["HOW"]

HOW = "start a server such as vLLM or Text Embeddings Inference, and set embedder.url or reranker.url"
