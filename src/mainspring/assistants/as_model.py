"""An assistant as a language model: a run's events as an engine's, with what they have more beside them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

import msgspec

from mainspring.assistants.events import Cited, End, Error, Event, Interrupt, Retrieval, Spent, Start, Text
from mainspring.assistants.service import Asked, AssistantService
from mainspring.declare.identity import Identity
from mainspring.ports import llm

__all__ = ["ModelRun", "asked_of", "model_run"]

_KINDS: Mapping[str, llm.ErrorKind] = {
    kind: kind
    for kind in (
        "invalid",
        "context_length",
        "not_found",
        "auth",
        "rate",
        "overloaded",
        "timeout",
        "upstream",
        "crashed",
    )
}


def asked_of(request: llm.Generation, thread: str) -> Asked:
    """What a generation asks an assistant: the whole conversation, or in a thread the part that it has not heard.

    Args:
        request: its sampling and tools are the assistant's own business, and not used.
        thread: to go on with, or empty.
    """
    messages = request.messages
    if thread:
        last = max((place for place, message in enumerate(messages) if message.role == "assistant"), default=-1)
        messages = messages[last + 1 :]
    return Asked(tuple(messages), thread)


def model_run(service: AssistantService, asked: Asked, caller: Identity) -> ModelRun:
    """A run, to be read as a model's."""
    return ModelRun(service.run(asked, caller))


class ModelRun:
    """A run read as a model's: `events` are an engine's, and when they are over, `annotations` and `member` tell more.

    Args:
        events: of the run, from its start.
    """

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events = events
        self._start: Start | None = None
        self._cited: list[Cited] = []
        self._versions: dict[str, int] = {}
        self._interrupt: Interrupt | None = None
        self._usage: llm.Usage | None = None

    async def begin(self) -> None:
        """Wait for the run's start.

        Raises:
            MainspringError: as `AssistantService.run` does.
        """
        first = await anext(self._events)
        assert isinstance(first, Start), "a run begins with its start"
        self._start = first

    async def close(self) -> None:
        """Stop the run, if it is not over."""
        await self._events.aclose()

    async def events(self) -> AsyncGenerator[llm.Event, None]:
        """`Text` as it comes, then one `End` or `Error`; closing it stops the run."""
        if self._start is None:
            await self.begin()
        async with aclosing(self._events) as events:
            async for event in events:
                found = self._read(event)
                if found is not None:
                    yield found

    def _read(self, event: Event) -> llm.Event | None:
        if isinstance(event, Text):
            return llm.Text(event.text)
        if isinstance(event, Cited):
            self._cited.append(event)
        elif isinstance(event, Retrieval):
            self._versions[event.index] = event.version
        elif isinstance(event, Spent):
            self._usage = llm.Usage(event.prompt, event.completion, event.cached)
        elif isinstance(event, Interrupt):
            self._interrupt = event
            return llm.End(("stop",), self._usage)
        elif isinstance(event, End):
            return llm.End((event.reason,), self._usage)
        elif isinstance(event, Error):
            return llm.Error(_KINDS.get(event.kind, "upstream"), event.message, event.retryable)
        return None

    @property
    def annotations(self) -> list[dict[str, object]]:
        """OpenAI's ``message.annotations``: a ``url_citation`` for each citation, its offsets in the answer."""
        return [
            {
                "type": "url_citation",
                "url_citation": {
                    "start_index": cited.start,
                    "end_index": cited.end,
                    "url": cited.citation.uri,
                    "title": cited.citation.title,
                },
            }
            for cited in self._cited
        ]

    @property
    def member(self) -> dict[str, object]:
        """``message.mainspring``: ``citations``, ``index_version`` by index, ``thread_id``, ``interrupt``."""
        citations: Sequence[object] = [
            {"number": cited.number, "by": cited.by, **msgspec.to_builtins(cited.citation)} for cited in self._cited
        ]
        waiting = self._interrupt
        interrupt = None
        if waiting is not None:
            interrupt = {
                "id": waiting.id,
                "action_requests": list(waiting.action_requests),
                "review_configs": list(waiting.review_configs),
            }
        return {
            "citations": citations,
            "index_version": self._versions,
            "thread_id": (self._start.thread if self._start else "") or None,
            "interrupt": interrupt,
        }
