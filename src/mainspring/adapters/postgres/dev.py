"""How to get one locally."""

__all__ = ["HOW"]

HOW = "docker run -p 5432:5432 -e POSTGRES_PASSWORD=dev postgres:18, or your system's postgresql package"
