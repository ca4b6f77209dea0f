"""Settings of the scikit-learn adapter."""

from typing import Annotated

import msgspec

__all__ = ["SklearnSettings"]


class SklearnSettings(msgspec.Struct, frozen=True):
    """Which types a file may hold, and how many threads one call may use.

    Attributes:
        threads: of one call, where OpenMP has a say; small batches are fastest with one.
        trust: further type names that may be loaded, besides scikit-learn's, NumPy's and LightGBM's own.
    """

    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
    trust: tuple[str, ...] = ()
