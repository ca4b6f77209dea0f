"""The faults that every vector store has, in one wording."""

from __future__ import annotations

import errno

from mainspring.errors import ServiceError, StoreError, UsageError

__all__ = [
    "FULL",
    "aliased",
    "bad_snapshot",
    "closed",
    "exists_otherwise",
    "name_is_taken",
    "no_index",
    "no_room",
    "not_pushed_down",
    "owned",
    "schema_beyond",
    "unreadable",
    "unwritable",
]

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What is said where the disk, or a quota on it, takes no more."""


def no_index(name: str) -> ServiceError:
    """Neither an index nor an alias has that name."""
    return ServiceError(
        f"there is no index {name!r}",
        code="MS-4180",
        why="neither an index nor an alias has that name in the store",
        fix="mainspring apply builds the app's indexes",
    )


def exists_otherwise(name: str) -> StoreError:
    """An index of that name holds something else."""
    return StoreError(
        f"the index {name!r} is there with another schema",
        code="MS-4181",
        why="an index keeps the dimensions, metric, fields and language that it was made with",
        fix="make an index of another name, and let the alias lead to it",
    )


def name_is_taken(name: str, holder: str) -> StoreError:
    """What is to get a name finds it in use."""
    return StoreError(
        f"the name {name!r} is taken",
        code="MS-4181",
        why=f"{holder} has it already",
        fix="use another name",
    )


def owned(name: str, owner: str, place: str) -> StoreError:
    """Another process has the index open."""
    return StoreError(
        f"the index {name!r} belongs to another process",
        code="MS-4182",
        why=f"{owner or 'a process that did not say its name'} has it open, and an index has one owner at a time",
        origin=place,
        fix="ask that process over its API, or stop it; several need vectors.url: Postgres, or a Qdrant server",
    )


def no_room(why: str) -> StoreError:
    """The disk takes no more."""
    return StoreError("the disk is full", code="MS-4101", why=why, fix="free some space, and run again")


def unwritable(name: str, error: OSError) -> StoreError:
    """The operating system refuses to write an index."""
    if error.errno in FULL:
        return no_room(f"{error} ({name})")
    return unreadable(name, str(error), name)


def unreadable(name: str, why: str, place: str = "") -> StoreError:
    """The index cannot be opened, read or written."""
    return StoreError(
        f"the index {name!r} cannot be read or written",
        code="MS-4183",
        why=why,
        origin=place,
        fix="look at the disk and its quota; a damaged index is built anew: remove its folder, then mainspring apply",
    )


def closed(name: str) -> StoreError:
    """The store was closed."""
    return StoreError(
        f"the index {name!r} is closed", code="MS-4185", why="its store was closed", fix="open the store anew"
    )


def aliased(name: str, aliases: list[str]) -> StoreError:
    """An index that is to go is in use."""
    return StoreError(
        f"the index {name!r} is in use",
        code="MS-4184",
        why=f"the alias {', '.join(aliases)} leads to it",
        fix="let the alias lead elsewhere first",
    )


def bad_snapshot(why: str) -> StoreError:
    """A snapshot cannot be written, or is none."""
    return StoreError(
        "the snapshot cannot be written or read",
        code="MS-4186",
        why=why,
        fix="give a new file on a disk with space, and a snapshot that a store of the same kind has written",
    )


def not_pushed_down(store: str, what: str) -> UsageError:
    """The store cannot carry out a part of a query itself; doing it afterwards would return too few."""
    return UsageError(
        f"{store} cannot carry out the query",
        code="MS-2656",
        why=f"it has no {what}, and what it finds is never filtered afterwards",
        fix="leave that part out, or choose a store that has it: mainspring conditions vectors",
    )


def schema_beyond(store: str, why: str) -> UsageError:
    """The store cannot hold an index like that."""
    return UsageError(
        f"{store} cannot hold such an index",
        code="MS-2657",
        why=why,
        fix="change the schema, or choose another store: mainspring conditions vectors",
    )
