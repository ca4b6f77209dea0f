"""How to get one locally: any server with OpenAI's routes."""

__all__ = ["HOW"]

HOW = 'vllm serve MODEL, then [llms.NAME] url = "http://127.0.0.1:8000/v1"; in dev the local engine needs no upstream'
