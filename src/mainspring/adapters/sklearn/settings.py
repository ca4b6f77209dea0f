"""Settings of the scikit-learn adapter."""

import msgspec

__all__ = ["SklearnSettings"]


class SklearnSettings(msgspec.Struct, frozen=True):
    """Which types a file may hold.

    Attributes:
        trust: further type names that may be loaded, besides scikit-learn's, NumPy's and LightGBM's own.
    """

    trust: tuple[str, ...] = ()
