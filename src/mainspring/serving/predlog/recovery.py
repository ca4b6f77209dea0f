"""Segments into Parquet, at the end of their life or after a death: rename decides, nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.serving.predlog.segment import read_segment

if TYPE_CHECKING:
    import pyarrow.parquet as pq
else:
    pq = lazy("pyarrow.parquet")

__all__ = ["recover", "seal"]


def seal(path: Path) -> int:
    """Write a segment's finished records as ``seg-*.parquet``, then remove the segment; how many rows there were."""
    target = path.with_name(f"seg-{path.name.removeprefix('wal-')}.parquet")
    rows = 0
    if not target.exists():
        found = read_segment(path)
        if found is not None and len(found[1]):
            rows = len(found[1])
            part = target.with_suffix(".parquet.tmp")
            pq.write_table(found[1], part, compression="zstd")
            descriptor = os.open(part, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(part, target)
    path.unlink(missing_ok=True)
    return rows


def recover(folder: Path) -> int:
    """Seal the segments whose writers are dead; how many rows were saved. Segments in use are left alone."""
    saved = 0
    for path in sorted(folder.glob("wal-*")):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                saved += seal(path)
            finally:
                os.close(descriptor)
    for path in folder.glob("seg-*.parquet.tmp"):
        path.unlink(missing_ok=True)
    return saved
