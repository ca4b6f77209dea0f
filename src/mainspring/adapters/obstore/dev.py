"""How to get one locally."""

__all__ = ["HOW"]

HOW = "pip install 'moto[server]' && moto_server, with options.endpoint = \"http://127.0.0.1:5000\""
