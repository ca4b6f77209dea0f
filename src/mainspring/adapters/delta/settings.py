"""Settings of the Delta tables."""

from typing import Annotated

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
        checkpoint_every: after how many commits the state of a new table is written whole, so that earlier commits need
            not be read.
        pack: this many commits before a checkpoint are put into an archive, so that a commit need not list them.
        tries: how often an append is tried while other processes commit to the same table.
        memory: what a query of the tables may hold, as ``1GiB``; the rest goes to files beside the tables. Four fifths
            of the machine's memory when left out.
    """

    url: str | None = None
    history_days: Annotated[int, msgspec.Meta(ge=0)] = 3650
    row_group: Annotated[int, msgspec.Meta(ge=1)] = 131_072
    tidy_every: Annotated[int, msgspec.Meta(ge=1)] = 64
    tidy_bytes: Annotated[int, msgspec.Meta(ge=0)] = 8 << 20
    checkpoint_every: Annotated[int, msgspec.Meta(ge=1)] = 100
    pack: Annotated[int, msgspec.Meta(ge=1)] = 64
    tries: Annotated[int, msgspec.Meta(ge=1)] = 20
    memory: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+ ?[KMGT]i?B$")] | None = None
