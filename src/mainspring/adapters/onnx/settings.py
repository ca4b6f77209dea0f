"""Settings of the converter."""

from typing import Annotated

import msgspec

__all__ = ["ConverterSettings"]


class ConverterSettings(msgspec.Struct, frozen=True):
    """The ONNX operator set that is written."""

    opset: Annotated[int, msgspec.Meta(ge=9)] = 17
