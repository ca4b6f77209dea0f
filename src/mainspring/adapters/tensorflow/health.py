"""Whether the library can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import tensorflow
else:
    tensorflow = lazy("tensorflow")

__all__ = ["health"]


def health(runtime: object) -> dict[str, object]:
    """The library's version."""
    return {"version": tensorflow.__version__}
