"""``mainspring ask``: talk to an assistant in the terminal."""

from __future__ import annotations

import asyncio
import getpass
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click

from mainspring.assistants.events import Error, Event, Folded, Interrupt, Retrieval, Text, ToolCall, fold, plain
from mainspring.assistants.service import Asked, AssistantService
from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import emit, tell
from mainspring.declare.data import did_you_mean
from mainspring.declare.identity import Identity
from mainspring.errors import ServiceError, UsageError
from mainspring.plan.graph import Plan
from mainspring.ports.llm import Message
from mainspring.server.answering.inside import answering
from mainspring.server.planning import plan_of

__all__ = ["command"]


@click.command(short_help="talk to an assistant in the terminal")
@click.argument("assistant")
@click.argument("text", required=False)
@click.option("--as", "user", default=None, help="ask as this user; otherwise as the one who is logged in")
@click.option("--group", "groups", multiple=True, help="a group that the user is in; may be given again")
@project_options
def command(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    assistant: str,
    text: str | None,
    user: str | None,
    groups: tuple[str, ...],
) -> int:
    """Ask ASSISTANT the question TEXT, or without TEXT talk with it, a line at a time, until the input ends.

    The answer is printed as it comes, then its sources. A tool that needs approval asks for it at a terminal.
    """
    if text is not None and not text.strip():
        raise UsageError("the question is empty", code="MS-2609", fix="write it behind the assistant's name, in quotes")
    services, app = open_app(project, profile)
    plan = plan_of(app)
    name = _named(plan, assistant)
    caller = Identity(user or getpass.getuser(), groups)
    talk = _Talk(as_json, caller)

    async def go() -> None:
        async with answering(services, plan, tell, recorded=True) as assistants:
            await talk.with_(assistants[name], text)

    asyncio.run(go())
    return 0


def _named(plan: Plan, assistant: str) -> str:
    name = assistant.strip("/").removeprefix("assistant/")
    known = [node.name for node in plan.of_kind("assistant")]
    if name not in known:
        first = f'the assistant comes first: mainspring ask {known[0]} "..."' if known and " " in name else ""
        raise UsageError(
            f"no assistant is called {assistant!r}", code="MS-2602", fix=first or did_you_mean(name, known)
        )
    return name


class _Talk:
    """One conversation at a terminal, or one question from a script."""

    def __init__(self, as_json: bool, caller: Identity) -> None:
        self._as_json = as_json
        self._caller = caller
        self._answers: list[Mapping[str, object]] = []

    async def with_(self, assistant: AssistantService, text: str | None) -> None:
        """Ask once, or as long as lines come."""
        thread = await assistant.create_thread(self._caller)
        try:
            if text is not None:
                await self._ask(assistant, thread.thread_id, text)
            else:
                async for line in _lines():
                    await self._ask(assistant, thread.thread_id, line)
        finally:
            await assistant.delete_thread(thread.thread_id, self._caller)
        if self._as_json:
            emit(self._answers[0] if text is not None else self._answers)

    async def _ask(self, assistant: AssistantService, thread: str, text: str) -> None:
        asked = Asked((Message("user", (text,)),), thread)
        folded = await self._shown(assistant.run(asked, self._caller))
        while (waiting := folded.interrupt) is not None:
            decisions = [_decision(request) for request in waiting.action_requests]
            folded = await self._shown(assistant.resume(thread, waiting.id, decisions, self._caller))
        if isinstance(folded.error, Error):
            raise ServiceError(
                f"the assistant could not answer: {folded.error.message}",
                code=folded.error.code,
                why=folded.error.kind,
                fix="ask again" if folded.error.retryable else "mainspring doctor",
            )
        self._answers.append(plain(folded))

    async def _shown(self, events: Any) -> Folded:
        seen: list[Event] = []
        async with aclosing(events) as stream:
            async for event in stream:
                seen.append(event)
                if not self._as_json:
                    _show(event)
        folded = fold(seen)
        if not self._as_json and not isinstance(seen[-1], Interrupt):
            _show_sources(folded)
        return folded


def _show(event: Event) -> None:
    if isinstance(event, Text):
        sys.stdout.write(event.text)
        sys.stdout.flush()
    elif isinstance(event, Retrieval):
        tell(f"searched {event.index}: {len(event.sources)} passages")
    elif isinstance(event, ToolCall):
        tell(f"calls {event.name}({', '.join(f'{key}={value!r}' for key, value in event.arguments.items())})")


def _show_sources(folded: Folded) -> None:
    print()
    for cited in folded.citations:
        pages = "" if cited.citation.pages is None else f", page {cited.citation.pages[0]}"
        print(f"  [{cited.number}] {cited.citation.title} ({cited.citation.uri}{pages})")


def _decision(request: Mapping[str, object]) -> dict[str, object]:
    """What a person says to a call; nobody at a terminal is a no."""
    if not sys.stdin.isatty():
        return {"type": "reject", "message": "nobody was there to approve it"}
    given = click.confirm(f"{request['name']}({request['args']}): carry it out?", err=True)
    return {"type": "approve"} if given else {"type": "reject", "message": "the user said no"}


async def _lines() -> AsyncIterator[str]:
    while True:
        if sys.stdin.isatty():
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            return
        if line.strip():
            yield line.strip()
