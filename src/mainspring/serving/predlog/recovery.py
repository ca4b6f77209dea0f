"""Segments into Parquet, at the end of their life or after a death: rename decides, nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.serving.predlog.arrow import to_arrow
from mainspring.serving.predlog.categories import read_categories
from mainspring.serving.predlog.segment import open_segment, segment_name

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    pq = lazy("pyarrow.parquet")

__all__ = ["recover", "seal"]


def seal(path: Path) -> int:
    """Write a segment's finished records as ``seg-*.parquet``, then remove the segment; the caller holds its lock.

    A file that is no segment of this version is set aside as ``unreadable-*``, never removed.

    Returns:
        How many rows were written; 0 when its Parquet file was there already.

    Raises:
        OSError: the Parquet file cannot be written; the segment stays, and can be sealed later.
    """
    target = path.with_name(f"seg-{segment_name(path)}.parquet")
    rows = 0
    if not target.exists():
        segment = open_segment(path)
        if segment is None:
            os.rename(path, path.with_name(f"unreadable-{path.name}"))
            return 0
        records = segment.records()
        rows = len(records)
        if rows:
            _write(to_arrow(segment.schema, records, read_categories(path.parent)), target)
    path.unlink(missing_ok=True)
    return rows


def _write(table: pa.Table, target: Path) -> None:
    """Write a Parquet file that is whole or not there."""
    part = target.with_suffix(".parquet.tmp")
    try:
        pq.write_table(table, part, compression="zstd")
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.rename(part, target)
    except OSError:
        part.unlink(missing_ok=True)  # on a full disk its room is what others wait for
        raise


def recover(folder: Path) -> int:
    """Seal the segments whose writers are dead; how many rows were saved. Segments in use are left alone.

    One that cannot be sealed now, because the disk is full, stays as it is for the next time: readers read it there.
    """
    saved = 0
    for path in sorted(folder.glob("wal-*")):
        with _locked(path) as ours:
            if ours:
                with contextlib.suppress(OSError):
                    saved += seal(path)
    for path in folder.glob(".new-*"):
        with _locked(path) as ours:
            if ours:
                path.unlink(missing_ok=True)
    for path in folder.glob("seg-*.parquet.tmp"):
        if not path.with_name(f"wal-{segment_name(path)}").exists():
            path.unlink(missing_ok=True)
    return saved


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether the lock of a dead writer's file could be taken; it is held within."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:  # its writer has sealed it
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        # The file may have been sealed, and its name removed, between the opening and the lock.
        yield path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())
    finally:
        os.close(descriptor)
