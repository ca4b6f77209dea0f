"""onnxruntime's errors turned into cause and remedy."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.errors import ConfigError, StoreError

__all__ = ["broken_embedder", "unknown_embedder"]


def broken_embedder(name: str, error: Exception) -> StoreError:
    """An embedder whose files are missing, damaged or do not fit each other."""
    return StoreError(
        f"embedder {name!r} cannot be loaded",
        code="MS-4262",
        why=(str(error).splitlines() or [type(error).__name__])[0][:200],
        fix="install its package again, or mend embedder.json and the files beside it",
    )


def unknown_embedder(name: str | None, known: Sequence[str]) -> ConfigError:
    """A model that is not installed, or none named where it has to be."""
    there = ", ".join(sorted(known)) or "none"
    return ConfigError(
        f"no embedder {name!r} is installed" if name else "which embedder to use is not clear",
        code="MS-3050",
        why=f"installed: {there}",
        origin="embedder.model",
        fix="pip install mainspring-embed-minilm, or set embedder.model, embedder.path or embedder.url",
    )
