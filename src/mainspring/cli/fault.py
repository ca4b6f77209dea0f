"""An unexpected exception, as an error of ours."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path

from mainspring.errors import InternalError, MainspringError, StoreError

__all__ = ["unexpected"]


def unexpected(error: Exception) -> MainspringError:
    """The four-line error of an exception that nobody expected."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError("the disk is full", code="MS-4101", why=str(error), fix="free some space and run it again")
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return InternalError(
        "something in Mainspring itself went wrong",
        code="MS-7001",
        why=f"{type(error).__name__}: {error}",
        origin=place,
        fix="run it again with -v and report what it prints",
    )
