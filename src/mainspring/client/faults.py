"""What a client raises."""

from __future__ import annotations

from mainspring.errors import ConfigError, DataError, ServiceError

__all__ = ["AnswerError", "KeyRefusedError", "RequestRefusedError", "no_answer", "refused"]


class RequestRefusedError(DataError):
    """The server has understood who asks, and refuses what is asked.

    Attributes:
        status: of HTTP.
        server_code: the server's own code of the fault; empty where it gives none.
    """

    status: int = 400
    server_code: str = ""


class KeyRefusedError(ConfigError):
    """The server does not know the key, or wants one."""


class AnswerError(ServiceError):
    """The server does not answer, or cannot now; every try that the client may make was made.

    Attributes:
        status: of HTTP; 0 where there was no answer.
    """

    status: int = 0


def no_answer(url: str, why: str, tries: int) -> AnswerError:
    """Of a server that does not answer."""
    return AnswerError(
        f"{url} does not answer",
        code="MS-4380",
        why=f"{why}, in {tries} {'try' if tries == 1 else 'tries'}",
        fix="look whether the server runs and the address is right: curl URL/v2/health/ready",
    )


def refused(url: str, status: int, told: str, code: str, fix: str) -> Exception:
    """Of an answer that is none of success."""
    if status in (401, 403):
        return KeyRefusedError(
            f"{url} wants a key, or another one",
            code="MS-3110",
            why=told,
            fix="Client(url, key=...): one of the keys of server.keys there",
        )
    if status < 500 and status != 429:
        found = RequestRefusedError(f"{url} refuses the request: {told}", code="MS-2790", fix=fix)
        found.status, found.server_code = status, code
        return found
    late = AnswerError(
        f"{url} cannot answer now",
        code="MS-4381",
        why=f"status {status}: {told}",
        fix="try again later, with fewer requests at once, or look at the server's log",
    )
    late.status = status
    return late
