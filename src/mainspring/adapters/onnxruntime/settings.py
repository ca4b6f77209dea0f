"""Settings of the onnxruntime adapter."""

import msgspec

__all__ = ["OnnxSettings"]


class OnnxSettings(msgspec.Struct, frozen=True):
    """How many threads one call may use; small models are fastest with one."""

    threads: int = 1
