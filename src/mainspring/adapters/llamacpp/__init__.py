"""llama.cpp on this machine, in a child process, through xllamacpp."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="llm",
    name="llamacpp",
    factory="mainspring.adapters.llamacpp.engine:open_engine",
    settings="mainspring.adapters.llamacpp.settings:LlamaCppSettings",
    embedded=True,
    modules=("xllamacpp", "httptools", "jsonschema_rs"),
    extra="llm",
    capabilities={"chat": True, "embeddings": True, "local": True, "grammar": True},
)
