"""The client's errors turned into cause and remedy; no key is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.errors import ServiceError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    from qdrant_client.http import exceptions
else:
    exceptions = lazy("qdrant_client.http.exceptions")

__all__ = ["no_answer", "turned"]


def turned(error: Exception) -> Exception:
    """The error as people should see it; ours, and programming errors, stay what they are."""
    if isinstance(error, exceptions.ResponseHandlingException):
        return no_answer(str(error))
    if isinstance(error, exceptions.UnexpectedResponse):
        if error.status_code in (401, 403):
            return ServiceError(
                "the Qdrant server refuses the key",
                code="MS-4196",
                why=f"it answered {error.status_code}",
                origin="vectors.api_key",
                fix='set vectors.api_key = "env:QDRANT_KEY" to a key that may write',
            )
        content = (error.content or b"").decode("utf-8", "replace")
        return ServiceError(
            "the Qdrant server refuses",
            code="MS-4197",
            why=f"it answered {error.status_code}: {content[:300]}",
            origin="vectors.url",
            fix="look at the server's log",
        )
    if type(error).__module__.startswith("grpc"):
        return no_answer(str(error).splitlines()[0])
    return error


def no_answer(why: str) -> ServiceError:
    """The server could not be reached, or took too long."""
    return ServiceError(
        "the Qdrant server does not answer",
        code="MS-4195",
        why=why,
        origin="vectors.url",
        fix="start it, correct vectors.url, or raise vectors.timeout",
    )
