"""The file system's errors turned into cause and remedy."""

from __future__ import annotations

import errno

from mainspring.errors import StoreError

__all__ = ["corrupt", "missing", "turned"]


def turned(error: OSError) -> StoreError:
    """A full disk or a folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            "the disk is full", code="MS-4101", why=str(error.strerror), fix="free some space and run again"
        )
    return StoreError(
        "the object store cannot be written or read",
        code="MS-4102",
        why=str(error.strerror or error),
        fix="make the state folder readable and writable",
    )


def missing(digest: str) -> StoreError:
    """A blob that should be here is not."""
    return StoreError(
        f"blob {digest[:12]} is not in the object store", code="MS-4103", fix="run again: what made it is run anew"
    )


def corrupt(digest: str, found: str, moved: bool) -> StoreError:
    """A blob's content is not what its name says."""
    return StoreError(
        f"blob {digest[:12]} is corrupt",
        code="MS-4104",
        why=f"its content has digest {found[:12]}" + ("; it was moved to objects/corrupt" if moved else ""),
        fix="run again: what made it is run anew" if moved else "make the state folder writable, and run again",
    )
