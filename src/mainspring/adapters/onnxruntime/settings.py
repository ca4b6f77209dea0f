"""Settings of the onnxruntime adapter."""

from typing import Annotated

import msgspec

__all__ = ["OnnxSettings"]


class OnnxSettings(msgspec.Struct, frozen=True):
    """How many threads one call may use; small models are fastest with one."""

    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
