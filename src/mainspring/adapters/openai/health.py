"""What the upstream is; whether it answers is asked by the engine itself, with a token."""

from __future__ import annotations

from mainspring.adapters.openai.engine import OpenAIEngine

__all__ = ["health"]


def health(engine: OpenAIEngine) -> dict[str, object]:
    """What it serves, as far as is known."""
    can = engine.capabilities()
    return {"models": list(can.models), "context": can.context}
