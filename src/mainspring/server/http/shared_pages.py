"""Paths that people read as pages of the console, and clients of TorchServe's management as JSON."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from mainspring.protocols.http import Fault, Router
from mainspring.server.http.asgi import AsgiApp
from mainspring.server.http.messages import Receive, Send

__all__ = ["pages_or_answers"]

_HTML = b"text/html"


def pages_or_answers(pages: AsgiApp, answers: AsgiApp, router: Router, prefix: str) -> AsgiApp:
    """Pages for who accepts HTML, as every browser says; the answers of a router for who does not.

    Args:
        pages: whose paths they are.
        answers: the router's, behind the same guard.
        router: which paths have an answer.
        prefix: of the paths that both have; all others are pages.
    """

    async def chosen(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        asked = scope["type"] == "http" and scope["method"] == "GET" and scope["path"].startswith(prefix)
        app = answers if asked and not _reads_pages(scope) and _answered(router, scope) else pages
        await app(scope, receive, send)

    return chosen


def _reads_pages(scope: MutableMapping[str, Any]) -> bool:
    return any(name == b"accept" and _HTML in value for name, value in scope["headers"])


def _answered(router: Router, scope: MutableMapping[str, Any]) -> bool:
    if scope["path"].endswith(".json"):  # a page as JSON
        return False
    try:
        router.route("GET", scope["raw_path"])
    except Fault:
        return False
    return True
