"""Whether the library can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import onnxruntime as ort
else:
    ort = lazy("onnxruntime")

__all__ = ["health"]


def health(runtime: object) -> dict[str, object]:
    """The library's version and providers."""
    return {"version": ort.__version__, "providers": ort.get_available_providers()}
