"""Whether the scripted engine answers."""

from __future__ import annotations

from mainspring.testing.engine import FakeEngine

__all__ = ["health"]


def health(engine: FakeEngine) -> dict[str, object]:
    """It is in the process: what it serves."""
    return {"answers": True, "models": list(engine.capabilities().models)}
