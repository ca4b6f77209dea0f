"""How to get one locally: nothing to do, SQLite is in Python's standard library."""

__all__ = ["HOW"]

HOW = "nothing to install: the file appears in the project's state folder"
