"""How to get one locally."""

__all__ = ["HOW"]

HOW = "docker run -p 9092:9092 apache/kafka:4.1.0"
