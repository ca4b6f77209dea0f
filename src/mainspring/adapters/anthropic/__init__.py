"""Upstreams that speak Anthropic's Messages API."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="llm",
    name="anthropic",
    factory="mainspring.adapters.anthropic.engine:open_engine",
    settings="mainspring.adapters.anthropic.settings:AnthropicSettings",
    modules=("httptools", "aiohttp"),
    extra="llm",
    capabilities={"chat": True, "embeddings": False, "local": False},
)
