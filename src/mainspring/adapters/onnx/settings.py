"""Settings of the converter."""

import msgspec

__all__ = ["ConverterSettings"]


class ConverterSettings(msgspec.Struct, frozen=True):
    """The ONNX operator set that is written."""

    opset: int = 17
