"""What the upstream is; whether it answers is asked by the engine itself, with a token."""

from __future__ import annotations

from mainspring.adapters.anthropic.engine import AnthropicEngine

__all__ = ["health"]


def health(engine: AnthropicEngine) -> dict[str, object]:
    """What it serves."""
    can = engine.capabilities()
    return {"models": list(can.models), "context": can.context}
