"""How to get one locally."""

__all__ = ["HOW"]

HOW = "docker run -p 3306:3306 -e MARIADB_ROOT_PASSWORD=dev mariadb:11, or your system's mariadb-server package"
