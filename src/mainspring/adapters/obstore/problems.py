"""Object stores' errors turned into cause and remedy."""

from __future__ import annotations

import errno
import re

from obstore import exceptions

from mainspring.errors import ConfigError, DataError, MainspringError, ServiceError, StoreError

__all__ = ["corrupt", "elsewhere", "missing", "objects_turned", "turned", "unwritable"]

_TIME = re.compile(r"operation timed out|request timed out|deadline", re.IGNORECASE)
_SHUT = re.compile(r"status code: 40[13]")
_GONE = re.compile(r"status code: 404")


def turned(error: Exception, place: str, file: str = "") -> MainspringError:
    """The error as people should see it; `place` is the bucket, without credentials."""
    text = _first_cause(str(error))
    if isinstance(error, exceptions.UnknownConfigurationKeyError):
        return ConfigError(
            f"an option of {place} is unknown to its driver",
            code="MS-3042",
            why=text,
            origin="sources.NAME.options",
            fix="correct its name: access_key_id, secret_access_key, region, endpoint, account_name, ...",
        )
    if isinstance(error, exceptions.PreconditionError):
        return DataError(
            f"{file} of {place} has changed while it was read",
            code="MS-2152",
            why="it is another version than the one that was listed",
            origin=place,
            fix="run it again; write files under names of their own, and do not write them anew",
        )
    if isinstance(error, (exceptions.NotFoundError, FileNotFoundError)) or _GONE.search(text):
        return DataError(
            f"{place} has no such bucket or file",
            code="MS-2112",
            why=text,
            origin=place,
            fix="look at the bucket and the path in sources.NAME.url",
        )
    shut = isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError))
    if shut or _SHUT.search(text):
        return ServiceError(
            f"{place} lets nobody in with these credentials",
            code="MS-4221",
            why=text,
            origin=place,
            fix="look at the keys in sources.NAME.options or in the environment, and grant list and read",
        )
    if _TIME.search(text):
        return ServiceError(
            f"{place} took too long", code="MS-4222", why=text, origin=place, fix="raise sources.NAME.timeout"
        )
    return ServiceError(
        f"{place} does not answer",
        code="MS-4220",
        why=text,
        origin=place,
        fix="look at the address, sources.NAME.options.endpoint or the region, and at the network",
    )


def objects_turned(error: Exception, place: str) -> MainspringError:
    """What went wrong with the bucket that blobs are in; `place` is the bucket, without credentials."""
    text = _first_cause(str(error))
    if isinstance(error, exceptions.UnknownConfigurationKeyError):
        return ConfigError(
            f"an option of {place} is unknown to its driver",
            code="MS-3042",
            why=text,
            origin="objects.options",
            fix="correct its name: access_key_id, secret_access_key, region, endpoint, account_name, ...",
        )
    shut = isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError))
    if shut or _SHUT.search(text):
        return ServiceError(
            f"{place} lets nobody in with these credentials",
            code="MS-4119",
            why=text,
            origin="objects.url",
            fix="look at the keys in objects.options or in the environment; grant list, read, write and delete",
        )
    return ServiceError(
        f"{place} does not answer",
        code="MS-4118",
        why=text,
        origin="objects.url",
        fix="look at the bucket, at objects.options.endpoint or the region, and at the network",
    )


def missing(digest: str, place: str) -> StoreError:
    """A blob that should be there is not."""
    return StoreError(
        f"blob {digest[:12]} is not in the object store",
        code="MS-4103",
        origin=place,
        fix="run again: what made it is run anew",
    )


def corrupt(digest: str, found: str, place: str) -> StoreError:
    """A blob's content is not what its name says."""
    return StoreError(
        f"blob {digest[:12]} is corrupt",
        code="MS-4104",
        why=f"its content has digest {found[:12]}; it was moved to corrupt/ there",
        origin=place,
        fix="run again: what made it is run anew",
    )


def elsewhere() -> StoreError:
    """A fork goes on with what its parent has begun."""
    return StoreError(
        "the object store cannot be written or read",
        code="MS-4102",
        why="the process has forked after it used the bucket's driver, whose threads are missing here",
        fix="start a process of its own for what uses the store, not a fork",
    )


def unwritable(error: OSError) -> StoreError:
    """The local folder for blobs that are fetched or written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            "the disk is full", code="MS-4101", why=str(error.strerror), fix="free some space and run again"
        )
    return StoreError(
        "the object store's local copies cannot be written or read",
        code="MS-4102",
        why=str(error.strerror or error),
        fix="make the state folder readable and writable",
    )


def _first_cause(text: str) -> str:
    """The driver's words without the debug print of the error that follows them."""
    return re.sub(r"\s+", " ", text.partition("\n\nDebug source:")[0]).strip()[:500]
