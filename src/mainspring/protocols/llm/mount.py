"""Every wire of language models on one router."""

from __future__ import annotations

import time
from collections.abc import Callable

from mainspring.llm.gateway import Gateway
from mainspring.llm.stored import StoredResponses
from mainspring.protocols.anthropic.rest import add_anthropic_routes
from mainspring.protocols.http import Router
from mainspring.protocols.llm.passthrough import add_passthrough_routes
from mainspring.protocols.openai.rest import add_openai_routes

__all__ = ["add_llm_routes"]


def add_llm_routes(
    router: Router, gateway: Gateway, stored: StoredResponses, now_s: Callable[[], float] = time.time
) -> None:
    """Serve a gateway: OpenAI's wire, Anthropic's, and what upstreams are asked as it is.

    Args:
        router: where the routes go.
        gateway: who answers.
        stored: keeps responses for those who come back to them.
        now_s: the clock, seconds since 1970.
    """
    add_openai_routes(router, gateway, now_s, stored)
    add_anthropic_routes(router, gateway)
    add_passthrough_routes(router, gateway)
