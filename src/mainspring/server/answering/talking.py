"""What the console asks in words: assistants, models and routes behind one stream of events, and their runs."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

import msgspec

from mainspring.assistants.events import End, EndReason, Error, Event, Spent, Start, Text, fold, is_last
from mainspring.assistants.run_log import RunCounts, RunLog
from mainspring.assistants.service import Asked, AssistantService
from mainspring.assistants.trace import Open, RunRecord, Trace
from mainspring.catalog.ids import now_us
from mainspring.declare.identity import Identity
from mainspring.llm.call_log import CallLog, CallRow, DayRow
from mainspring.llm.gateway import Gateway
from mainspring.llm.values import Caller
from mainspring.ports import llm as port
from mainspring.rag.search import Searcher
from mainspring.server.answering.language import Language, ModelRow

__all__ = ["Talking"]

_REASONS: Mapping[str, EndReason] = {
    "length": "length",
    "content_filter": "content_filter",
    "cancelled": "cancelled",
}


class Talking:
    """Everything of an app that answers in words, as the console needs it. Asked on the server's event loop.

    Args:
        language: the language models.
        assistants: the assistants, by name.
        searchers: the indexes, by name.
        record: the runs that are over; those of bare models are added.
        calls: the record of the models' requests.
    """

    def __init__(
        self,
        language: Language,
        assistants: Mapping[str, AssistantService],
        searchers: Mapping[str, Searcher],
        record: RunLog,
        calls: CallLog,
    ) -> None:
        self._language = language
        self._assistants = assistants
        self._searchers = searchers
        self._record = record
        self._calls = calls

    def partners(self) -> Mapping[str, str]:
        """What can be talked to: the kind by the name; an assistant comes before a model of the same name."""
        models = dict.fromkeys(self._language.inner.lanes, "route")
        models |= {row.name: "llm" for row in self._language.report()}
        return models | dict.fromkeys(self._assistants, "assistant")

    def models(self) -> Sequence[ModelRow]:
        """A row for each declared model: its engine, whether it answers, and why not."""
        return self._language.report()

    def searcher(self, index: str) -> Searcher | None:
        """An index to be searched, or None."""
        return self._searchers.get(index)

    def calls(self, names: Sequence[str], limit: int) -> Sequence[CallRow]:
        """The last requests that went by one of these names or to an upstream of one, the newest first."""
        return self._calls.last(names, limit)

    def days(self, names: Sequence[str], days: int) -> Sequence[DayRow]:
        """Their totals per day (UTC), the newest first."""
        return self._calls.days(names, days)

    def runs(self, name: str = "", limit: int = 20) -> Sequence[RunRecord]:
        """The last runs that are kept, of one partner or of all, the newest first."""
        return self._record.last(name, limit)

    def run(self, id: str) -> RunRecord | None:
        """A run that is kept, or None."""
        return self._record.find(id)

    def counts(self, name: str) -> RunCounts:
        """What became of the runs of a partner that are on record."""
        return self._record.counts(name)

    def ask(self, name: str, asked: Asked, caller: Identity) -> AsyncGenerator[Event, None]:
        """Ask a partner; the events of one run. Closing the iterator stops it.

        Args:
            name: one of `partners`.
            asked: the conversation.
            caller: by whose rights the documents are searched and the tools used.

        Raises:
            KeyError: there is no such partner.
            MainspringError: as `AssistantService.run`, before the first event.
        """
        if name in self._assistants:
            return self._assistants[name].run(asked, caller)
        if name not in self._language.inner.lanes:
            raise KeyError(name)
        return self._bare(name, asked, caller)

    def decide(
        self, name: str, thread: str, interrupt: str, decisions: Sequence[Mapping[str, Any]], caller: Identity
    ) -> AsyncGenerator[Event, None]:
        """Go on with an assistant's run that waits for a person.

        Raises:
            KeyError: there is no such assistant.
            MainspringError: as `AssistantService.resume`, before the first event.
        """
        return self._assistants[name].resume(thread, interrupt, decisions, caller)

    async def _bare(self, name: str, asked: Asked, caller: Identity) -> AsyncGenerator[Event, None]:
        """A model without an assistant: start, text, usage, and the end; traced like a run of an assistant."""
        run, at_us = _BareRun(name, self._language.inner, asked, caller), now_us()
        told: list[Event] = []
        try:
            async with aclosing(run.events()) as events:
                async for event in events:
                    told.append(msgspec.structs.replace(event, seq=len(told)))
                    yield told[-1]
        finally:
            question = next((said.text for said in reversed(asked.messages) if said.role == "user"), "")
            folded = fold(told)
            failed = folded.error.kind if folded.error else "" if told and is_last(told[-1]) else "left"
            spans = run.trace.closed(failed, answer=len(folded.text))
            self._record.put(RunRecord(run.id, name, "", caller.user, caller.tenant, at_us, question, folded, spans))


class _BareRun:
    """One answer of a model through the gateway in this process."""

    def __init__(self, name: str, gateway: Gateway, asked: Asked, caller: Identity) -> None:
        self.id = asked.run or secrets.token_hex(16)
        self.trace = Trace(name)
        self._name = name
        self._gateway = gateway
        self._messages = asked.messages
        self._caller = caller

    async def events(self) -> AsyncGenerator[Event, None]:
        yield Start(run=self.id, thread="", assistant=self._name)
        request = port.Generation(id="", model=self._name, messages=self._messages, user=self._caller.user)
        caller = Caller(tenant=self._caller.tenant, user=self._caller.user)
        generated = cast(AsyncGenerator[port.Event, None], self._gateway.generate(request, caller))
        with self.trace.span("model", self._name) as span:
            async with aclosing(generated) as answer:
                async for event in self._told(answer, span):
                    yield event

    async def _told(self, answer: AsyncIterator[port.Event], span: Open) -> AsyncGenerator[Event, None]:
        async for event in answer:
            if isinstance(event, port.Text):
                yield Text(text=event.text)
            elif isinstance(event, port.End):
                usage = event.usage or port.Usage(0, 0, source="counted")
                span.note(prompt=usage.prompt, completion=usage.completion, cached=usage.cached)
                yield Spent(
                    prompt=usage.prompt,
                    completion=usage.completion,
                    cached=usage.cached,
                    model_calls=1,
                    tool_calls=0,
                )
                reason = _REASONS.get(event.reasons[0] if event.reasons else "stop", "stop")
                yield End(reason=reason, refused=False, dropped=0, took_us=self.trace.closed()[0].took_us)
            elif isinstance(event, port.Error):
                span.failed = event.kind
                yield Error(code="MS-4301", kind=event.kind, message=event.message, retryable=event.retryable)
