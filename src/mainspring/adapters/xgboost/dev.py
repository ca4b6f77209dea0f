"""How to get one locally: the library is the runtime."""

__all__ = ["HOW"]

HOW = "pip install 'mainspring[xgboost]'"
