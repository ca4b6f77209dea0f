"""Whether the libraries can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import skl2onnx
else:
    skl2onnx = lazy("skl2onnx")

__all__ = ["health"]


def health(converter: object) -> dict[str, object]:
    """The library's version."""
    return {"version": skl2onnx.__version__}
