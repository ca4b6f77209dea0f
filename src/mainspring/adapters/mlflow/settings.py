"""Settings of the MLflow adapter."""

import msgspec

__all__ = ["MlflowSettings"]


class MlflowSettings(msgspec.Struct, frozen=True):
    """There are none: what a model does is in its folder."""
