"""Any upstream that speaks the OpenAI wire: OpenAI, Azure OpenAI, vLLM, SGLang, TEI, llama.cpp's own server, others."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="llm",
    name="openai",
    factory="mainspring.adapters.openai.engine:open_engine",
    settings="mainspring.adapters.openai.settings:OpenAISettings",
    schemes=("http", "https"),
    modules=("httptools", "aiohttp"),
    extra="llm",
    capabilities={"chat": True, "embeddings": True, "local": False},
)
