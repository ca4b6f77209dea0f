"""Settings of the Python adapter."""

import msgspec

__all__ = ["PythonSettings"]


class PythonSettings(msgspec.Struct, frozen=True):
    """There are none: what an object does is its own affair."""
