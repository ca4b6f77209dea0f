"""How to get one locally."""

__all__ = ["HOW"]

HOW = "docker run -p 6379:6379 redis:8, or your system's redis-server package"
