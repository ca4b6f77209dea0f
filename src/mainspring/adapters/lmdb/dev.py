"""How to get one locally: the library brings the store."""

__all__ = ["HOW"]

HOW = "pip install 'mainspring[tabular]'; the file appears in the project's state folder"
