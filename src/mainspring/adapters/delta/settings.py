"""Settings of the Delta tables."""

import msgspec

__all__ = ["DeltaSettings"]


class DeltaSettings(msgspec.Struct, frozen=True):
    """Where the tables are, and for how long old versions can be read.

    Attributes:
        url: ``file:///absolute/path``; ``tables`` in the app's state folder when left out.
        history_days: commits older than this may be forgotten; keep it beyond any pinned version.
        row_group: rows in a row group; DuckDB reads row groups in parallel.
        tidy_every: after how many commits the small files of a table are put together.
        tidy_bytes: files of this size are left as they are then.
        tries: how often an append is tried while other processes commit to the same table.
    """

    url: str | None = None
    history_days: int = 3650
    row_group: int = 131_072
    tidy_every: int = 64
    tidy_bytes: int = 8 << 20
    tries: int = 20
