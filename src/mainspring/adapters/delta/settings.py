"""Settings of the Delta tables."""

from typing import Annotated

import msgspec

__all__ = ["DeltaSettings", "RemoteSettings"]


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


class RemoteSettings(DeltaSettings, frozen=True):
    """Tables in an object store: as `DeltaSettings`, and how it is reached.

    Attributes:
        url: ``s3://bucket/path``, ``gs://bucket/path`` or ``az://container/path``; credentials belong into
            `options` or the environment.
        options: the driver's options: ``region``, ``endpoint``, ``access_key_id``, ``secret_access_key``,
            ``service_account_key``, ``account_name``, ``account_key``, ...
        cache_bytes: bytes of the tables' files that are kept on the local disk; files that were read within the last
            hour stay beyond that.
    """

    options: dict[str, str] = {}
    cache_bytes: Annotated[int, msgspec.Meta(ge=0)] = 64 << 30
