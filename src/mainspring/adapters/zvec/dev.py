"""How to get one locally: the library brings the store."""

__all__ = ["HOW"]

HOW = "pip install 'mainspring[zvec]' and vectors.adapter = \"zvec\"; the indexes appear in the project's state folder"
