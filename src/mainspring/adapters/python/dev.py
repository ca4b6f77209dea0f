"""How to get one locally: Python is the runtime."""

__all__ = ["HOW"]

HOW = "nothing: it comes with Python"
