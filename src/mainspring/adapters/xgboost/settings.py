"""Settings of the XGBoost adapter."""

from typing import Annotated

import msgspec

__all__ = ["XgboostSettings"]


class XgboostSettings(msgspec.Struct, frozen=True):
    """How many threads one call may use."""

    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
