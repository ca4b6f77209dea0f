"""How to get one locally."""

__all__ = ["HOW"]

HOW = "ray start --head --port 6379, then compute.url = ray://127.0.0.1:6379"
