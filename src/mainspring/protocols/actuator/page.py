"""A page of the actuator: its operations, and how they are answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from mainspring.protocols.http import Handler, Request, Response, json_response

__all__ = ["CONTENT_TYPE", "Operation", "Page", "RunBlocking", "reading"]

CONTENT_TYPE = b"application/vnd.spring-boot.actuator.v3+json"

RunBlocking = Callable[..., Awaitable[Any]]
"""Awaits a function that is run in a thread."""


class Operation(msgspec.Struct, frozen=True):
    """What may be asked of a page.

    Attributes:
        method: of HTTP.
        answer: who answers.
        path: below the page's own, its parameters as stars: ``*/history``.
        link: the same with their names: ``{name}/history``; empty for the page itself.
        key: of its link in the index, behind the page's name and a dash.
    """

    method: str
    answer: Handler
    path: str = ""
    link: str = ""
    key: str = ""


class Page(msgspec.Struct, frozen=True):
    """A page of the actuator.

    Attributes:
        name: below ``/actuator``.
        operations: what may be asked of it.
    """

    name: str
    operations: tuple[Operation, ...] = msgspec.field(default_factory=tuple)


def reading(make: Callable[[Request], object], run: RunBlocking) -> Handler:
    """Answers with what is made of a request, in a thread: it may touch a disk or wait for a lock."""

    async def read(request: Request) -> Response:
        return json_response(await run(make, request), content_type=CONTENT_TYPE)

    return read
