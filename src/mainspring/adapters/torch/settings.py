"""Settings of the PyTorch adapter."""

from typing import Annotated

import msgspec

__all__ = ["TorchSettings"]


class TorchSettings(msgspec.Struct, frozen=True):
    """How many threads one call may use."""

    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
