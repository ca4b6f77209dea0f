"""How to get one locally: not at all; use the local engine, or the scripted one in tests."""

__all__ = ["HOW"]

HOW = '[llms.NAME] adapter = "anthropic", with its key and model; in dev leave it out for the local engine'
