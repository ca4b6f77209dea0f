"""An app's assistants without a server: for the terminal, for evaluations and for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from mainspring.choose.services import Services
from mainspring.declare.assistant import Assistant
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.model import Endpoint
from mainspring.plan.graph import Plan
from mainspring.server.assistants import Assistants, assistants_of
from mainspring.server.knowledge import Knowledge
from mainspring.server.language import Language
from mainspring.server.loop import online_views
from mainspring.server.state import WorkerState

__all__ = ["answering"]

_DRAIN_SECONDS = 5.0


@asynccontextmanager
async def answering(
    services: Services, plan: Plan, told: Callable[[str], None] = lambda line: None
) -> AsyncIterator[Assistants]:
    """The app's assistants, with their models started; all is stopped and closed in the end.

    Raises:
        ServiceError: MS-4250, a language model cannot start, or not in time.
    """
    state = WorkerState(services, plan) if _need_models(plan) else None
    if state is not None:
        state.open()
    language = Language(services, plan, told)
    searchers = Knowledge(services, plan).searchers
    views = online_views(services, plan)
    assistants = assistants_of(
        services, plan, language.inner, searchers, lambda: {} if state is None else state.endpoints, views
    )
    try:
        await language.start_once()
        yield assistants
    finally:
        for assistant in assistants.values():
            await assistant.close()
        await language.stop(_DRAIN_SECONDS)
        if state is not None:
            state.close()
        services.close()


def _need_models(plan: Plan) -> bool:
    """Whether an assistant may use an endpoint of a model."""
    return any(
        isinstance(item, Endpoint) and name_of(item)
        for node in plan.of_kind("assistant")
        for item in spec_of(cast(Assistant, node.declaration)).may
    )
