"""How to get one locally: Python brings SQLite."""

__all__ = ["HOW"]

HOW = "pip install mainspring-shelf; the file appears where online.url says"
