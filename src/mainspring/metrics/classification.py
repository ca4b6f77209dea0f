"""The metrics of a classifier: one import for what is asked of probabilities."""

from __future__ import annotations

from mainspring.metrics.additive import accuracy, brier, ece, equal_count_bins, f1, log_loss, precision, recall
from mainspring.metrics.ranking import delong, roc_auc

__all__ = [
    "accuracy",
    "brier",
    "delong",
    "ece",
    "equal_count_bins",
    "f1",
    "log_loss",
    "precision",
    "recall",
    "roc_auc",
]
