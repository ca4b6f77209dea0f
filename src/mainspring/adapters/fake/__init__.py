"""A language model for development and tests that answers by a script; chosen by name only."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="llm",
    name="fake",
    factory="mainspring.adapters.fake.engine:open_engine",
    settings="mainspring.adapters.fake.settings:FakeSettings",
    capabilities={"chat": True, "embeddings": True, "local": True},
)
