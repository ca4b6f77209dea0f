"""How to get one locally: a container, or Qdrant's own binary."""

__all__ = ["HOW"]

HOW = "docker run -p 6333:6333 qdrant/qdrant; without a server the embedded engine (qdrant_edge) does the same"
