"""Settings of the TensorFlow adapter."""

from typing import Annotated

import msgspec

__all__ = ["TensorflowSettings"]


class TensorflowSettings(msgspec.Struct, frozen=True):
    """How many threads one call may use."""

    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
