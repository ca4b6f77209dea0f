"""Settings of the LightGBM adapter."""

import msgspec

__all__ = ["LightgbmSettings"]


class LightgbmSettings(msgspec.Struct, frozen=True):
    """How many threads one call may use."""

    threads: int = 1
