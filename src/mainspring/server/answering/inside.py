"""An app's assistants without a server: for the terminal, for evaluations and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from mainspring.choose.services import Services
from mainspring.declare.assistant import Assistant
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.model import Endpoint
from mainspring.plan.graph import Plan
from mainspring.server.answering.assistants import Assistants, assistants_of
from mainspring.server.answering.knowledge import Knowledge
from mainspring.server.answering.language import Language
from mainspring.server.answering.outside import close_all, outside_of, start_all
from mainspring.server.answering.records import calls_of, recorder_of
from mainspring.server.answering.runs import run_log_of
from mainspring.server.loop import online_views
from mainspring.server.state import WorkerState

__all__ = ["answering"]

_DRAIN_SECONDS = 5.0


@asynccontextmanager
async def answering(
    services: Services, plan: Plan, told: Callable[[str], None] = lambda line: None, *, recorded: bool = False
) -> AsyncIterator[Assistants]:
    """The app's assistants, with their models started; all is stopped and closed in the end.

    Args:
        services: the project's ports.
        plan: the app's graph.
        told: told what a person should know.
        recorded: whether runs and requests go on record beside those of a server; an evaluation keeps its own.

    Raises:
        ConfigError: MS-3063, an MCP server has no tool of that name; as its settings raise.
        ServiceError: MS-4250, a language model cannot start, or not in time.
        StoreError: MS-4175, the record of requests cannot be opened.
    """
    outside = outside_of(plan, services.settings, told)
    state = WorkerState(services, plan) if _need_models(plan) else None
    if state is not None:
        state.open()
    recorder = recorder_of(services, calls_of(services), plan.app, told) if recorded else None
    language = Language(services, plan, told, recorder)
    runs = run_log_of(services, plan, language, told) if recorded else None
    searchers = Knowledge(services, plan).searchers
    views = online_views(services, plan)
    endpoints = {} if state is None else state.endpoints
    assistants = assistants_of(services, plan, language.inner, searchers, lambda: endpoints, views, outside, runs)
    try:
        if recorder is not None:
            recorder.start()
        reaching = asyncio.create_task(start_all(outside.values()))
        try:
            await language.start_once()
            await reaching
        finally:
            reaching.cancel()
        yield assistants
    finally:
        for assistant in assistants.values():
            await assistant.close()
        await close_all(outside.values())
        await language.stop(_DRAIN_SECONDS)
        if recorder is not None:
            await asyncio.to_thread(recorder.stop)
        if runs is not None:
            await asyncio.to_thread(runs.close)
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
