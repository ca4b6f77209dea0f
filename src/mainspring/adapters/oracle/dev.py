"""How to get one locally."""

__all__ = ["HOW"]

HOW = "Oracle Database Free, as Oracle hands it out as an image, listening on 1521"
