"""How to get one locally: the libraries are the parser."""

__all__ = ["HOW"]

HOW = "pip install 'mainspring[rag]'"
