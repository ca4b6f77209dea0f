"""The metrics of a regressor: one import for what is asked of numbers."""

from __future__ import annotations

from mainspring.metrics.additive import mae, r2, rmse

__all__ = ["mae", "r2", "rmse"]
