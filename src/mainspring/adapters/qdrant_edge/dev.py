"""How to get one locally: the library brings the store."""

__all__ = ["HOW"]

HOW = "pip install 'mainspring[rag]'; the indexes appear in the project's state folder"
