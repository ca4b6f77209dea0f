"""Object stores' errors turned into cause and remedy."""

from __future__ import annotations

import re

from obstore import exceptions

from mainspring.errors import ConfigError, DataError, MainspringError, ServiceError

__all__ = ["turned"]

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


def _first_cause(text: str) -> str:
    """The driver's words without the debug print of the error that follows them."""
    return re.sub(r"\s+", " ", text.partition("\n\nDebug source:")[0]).strip()[:500]
