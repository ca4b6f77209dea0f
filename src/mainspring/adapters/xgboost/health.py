"""Whether the library can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import xgboost
else:
    xgboost = lazy("xgboost")

__all__ = ["health"]


def health(runtime: object) -> dict[str, object]:
    """The library's version."""
    return {"version": xgboost.__version__}
