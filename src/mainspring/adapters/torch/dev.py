"""How to get one locally: the library is the runtime."""

__all__ = ["HOW"]

HOW = "pip install torch, of the build that your machine wants"
