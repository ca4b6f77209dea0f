"""Ray's faults, with cause and remedy."""

from __future__ import annotations

from mainspring.errors import ServiceError

__all__ = ["lost", "unreachable", "unserved"]


def unreachable(url: str, error: Exception) -> ServiceError:
    """The cluster cannot be reached."""
    return ServiceError(
        f"no Ray cluster answers at {url}",
        code="MS-4240",
        why=(str(error).strip().partition("\n")[0] or type(error).__name__)[:300],
        origin="compute.url",
        fix="start one (ray start --head), join this machine to it, or leave compute.url out to compute here",
    )


def lost(error: Exception, tries: int) -> ServiceError:
    """A part could not be carried out."""
    return ServiceError(
        "the Ray cluster has lost a part of the work",
        code="MS-4241",
        why=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]} (tried {tries} times)",
        fix="look at the nodes' memory and logs (ray status); run it again: what is finished is kept",
    )


def unserved(status: int | None, seconds: float) -> ServiceError:
    """The server of a replica does not answer.

    Args:
        status: what its process ended with; None while it runs.
        seconds: how long it was waited for; 0 when it has answered before.
    """
    waited = f"it did not become ready in {seconds:g} s" if seconds else "it does not answer any more"
    return ServiceError(
        "the server of a Ray Serve replica does not answer",
        code="MS-5150",
        why=waited if status is None else f"its process ended with {status}",
        fix="look at the replica's log (ray logs, or the pod's); user_config {start_s: SECONDS} waits longer",
    )
