"""Whether the model is there to be loaded; whether it answers is asked by the engine itself, with a token."""

from __future__ import annotations

from mainspring.adapters.llamacpp.engine import LlamaCppEngine

__all__ = ["health"]


def health(engine: LlamaCppEngine) -> dict[str, object]:
    """What it serves, and whether its process runs."""
    can = engine.capabilities()
    return {"answers": bool(engine.pid), "models": list(can.models), "context": can.context, "starts": engine.starts}
