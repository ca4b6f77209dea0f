"""Redis's errors turned into cause and remedy; no password is in them."""

from __future__ import annotations

from redis import exceptions

from mainspring.errors import MainspringError, ServiceError, StoreError

__all__ = ["closed", "turned"]


def turned(error: exceptions.RedisError, place: str, port: str = "online") -> MainspringError:
    """The error as people should see it; `port` is the section of the settings."""
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, exceptions.OutOfMemoryError) or why.startswith("OOM"):
        return StoreError(
            "Redis has no memory left",
            code="MS-4142",
            why=why,
            origin=place,
            fix="raise its maxmemory; with a policy that evicts keys, features would go missing",
        )
    if isinstance(error, (exceptions.AuthenticationError, exceptions.NoPermissionError)):
        return ServiceError(
            "Redis does not let this user do that",
            code="MS-4211",
            why=why,
            origin=place,
            fix=f"look at the user and the password of {port}.url; it needs get, set, script and scan on its keys",
        )
    if isinstance(error, exceptions.TimeoutError):
        return ServiceError("Redis took too long", code="MS-4212", why=why, origin=place, fix=f"raise {port}.timeout")
    if isinstance(error, exceptions.ReadOnlyError):
        return StoreError(
            "Redis may not be written",
            code="MS-4140",
            why=why,
            origin=place,
            fix=f"give {port}.url the address of the primary, not of a replica",
        )
    if isinstance(error, exceptions.ConnectionError):
        return ServiceError(
            "Redis does not answer",
            code="MS-4210",
            why=why,
            origin=place,
            fix=f"start it, correct {port}.url, or allow more {port}.connections",
        )
    return ServiceError("Redis refuses", code="MS-4213", why=why, origin=place, fix="look at the log of Redis")


def closed(place: str) -> StoreError:
    """The error of a store that was closed."""
    return StoreError(
        "the online store was closed", code="MS-4140", why="it is used after it was let go", origin=place, fix="open it"
    )
