"""A run as a stream of events: graph updates in, frozen events out, exactly one of end, error and interrupt last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from langchain_core.messages import AIMessageChunk, ToolMessage
from langgraph.errors import GraphRecursionError

from mainspring.assistants.chat import ModelError
from mainspring.assistants.citing import Citing
from mainspring.assistants.context import RunContext
from mainspring.assistants.events import (
    End,
    EndReason,
    Error,
    Event,
    Interrupt,
    Retrieval,
    Start,
    ToolCall,
    ToolResult,
    fold,
    is_last,
)
from mainspring.assistants.service import Parts, Settings
from mainspring.assistants.text import is_refusal
from mainspring.assistants.trace import RunRecord
from mainspring.declare.identity import Identity
from mainspring.errors import InternalError, MainspringError, ServiceError

__all__ = ["Job", "Running", "interrupt_of"]

_BUFFER = 64
"""Events that may wait for a slow reader; then the model waits too."""
_REASONS: dict[str, EndReason] = {"length": "length", "content_filter": "content_filter", "cancelled": "cancelled"}


class Job(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        run: its id.
        thread: its thread, or empty.
        caller: who asked.
        graph: the agent.
        given: its input, or what it goes on with.
        config: LangGraph's.
        context: what it carries.
        question: what was asked, for the trace.
        drop_thread: whether the thread was made for this run only, and goes when nothing waits in it.
    """

    run: str
    thread: str
    caller: Identity
    graph: Any
    given: Any
    config: dict[str, Any]
    context: RunContext
    question: str
    drop_thread: bool = False


def interrupt_of(interrupts: Sequence[Any], thread: str) -> Interrupt:
    """LangGraph's interrupt as the event."""
    first = interrupts[0]
    return Interrupt(
        id=first.id,
        thread=thread,
        action_requests=tuple(dict(request) for request in first.value["action_requests"]),
        review_configs=tuple(dict(config) for config in first.value["review_configs"]),
    )


class Running:
    """The runs that go on.

    Args:
        settings: of the assistant.
        parts: its record and store.
    """

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self._settings = settings
        self._parts = parts
        self._works: dict[str, tuple[Job, asyncio.Task[Event]]] = {}

    def cancel(self, run: str, caller: Identity) -> bool:
        """Stop a run of the caller's; whether it was going."""
        found = self._works.get(run)
        if found is None or (found[0].caller.user, found[0].caller.tenant) != (caller.user, caller.tenant):
            return False
        return found[1].cancel()

    def cancel_thread(self, thread: str) -> None:
        """Stop what goes on in a thread."""
        for job, work in list(self._works.values()):
            if job.thread == thread:
                work.cancel()

    async def close(self) -> None:
        """Stop all runs, and wait for their ends."""
        works = [work for _, work in self._works.values()]
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)

    async def events(self, job: Job) -> AsyncGenerator[Event, None]:
        """The events of a run; closing the iterator stops it."""
        queue: asyncio.Queue[Event] = asyncio.Queue(_BUFFER)
        at_us = self._parts.now()
        told: list[Event] = []
        driving = asyncio.create_task(self._drive(job, queue))
        try:
            while not told or not is_last(told[-1]):
                event = msgspec.structs.replace(await queue.get(), seq=len(told))
                told.append(event)
                yield event
        finally:
            driving.cancel()
            await asyncio.wait({driving})
            await self._over(job, at_us, told)

    async def _drive(self, job: Job, queue: asyncio.Queue[Event]) -> None:
        await queue.put(Start(run=job.run, thread=job.thread, assistant=self._settings.name))
        telling = _Telling(job, queue)
        work = asyncio.create_task(telling.work())
        self._works[job.run] = (job, work)
        try:
            done, _ = await asyncio.wait({work}, timeout=self._settings.timeout)
            last = self._ended(work, telling) if done else self._late()
        finally:
            work.cancel()
            await asyncio.wait({work})
            del self._works[job.run]
        await queue.put(job.context.spending.told())
        await queue.put(last)

    def _ended(self, work: asyncio.Task[Event], telling: _Telling) -> Event:
        if work.cancelled():
            return telling.end("cancelled")
        error = work.exception()
        if error is None:
            return work.result()
        last = _failed(error)
        if last.kind == "internal":
            self._parts.on_error(error)
        return last

    def _late(self) -> Error:
        seconds = self._settings.timeout
        late = ServiceError(
            f"the run took longer than {seconds:g} seconds",
            code="MS-4302",
            why="the model and the tools share the time of a run",
            fix='give it more: app.assistant(..., timeout="5m")',
        )
        return _error(late, "timeout", retryable=True)

    async def _over(self, job: Job, at_us: int, told: Sequence[Event]) -> None:
        folded = fold(told)
        if job.drop_thread and folded.interrupt is None and self._parts.threads is not None:
            await asyncio.shield(asyncio.to_thread(self._parts.threads.delete, [job.thread]))
        if self._parts.record is None:
            return
        failed = folded.error.kind if folded.error else "" if told and is_last(told[-1]) else "left"
        spans = job.context.trace.closed(failed, answer=len(folded.text), citations=len(folded.citations))
        caller = job.caller
        self._parts.record(
            RunRecord(
                job.run,
                self._settings.name,
                job.thread,
                caller.user,
                caller.tenant,
                at_us,
                job.question,
                folded,
                spans,
            )
        )


class _Telling:
    """Turns what the graph says into events."""

    def __init__(self, job: Job, queue: asyncio.Queue[Event]) -> None:
        self._job = job
        self._queue = queue
        self._message = ""
        self._results: set[str] = set()
        self.citing = Citing(job.context.sources, job.context.must_stand if job.context.grounded else None)

    async def work(self) -> Event:
        """Run the graph to its end; the last event."""
        waiting: Interrupt | None = None
        parts = self._job.graph.astream(
            self._job.given,
            self._job.config,
            context=self._job.context,
            stream_mode=["messages", "updates", "custom"],
            durability="sync" if self._job.thread else None,
            version="v2",
        )
        async with aclosing(parts):
            async for part in parts:
                waiting = await self._part(part["type"], part["data"]) or waiting
        await self._put(await self.citing.close())
        return waiting or self.end()

    async def _part(self, kind: str, data: Any) -> Interrupt | None:
        if kind == "messages":
            await self._token(*data)
        elif kind == "custom":
            await self._custom(data)
        elif "__interrupt__" in data:
            return interrupt_of(data["__interrupt__"], self._job.thread)
        else:
            await self._update(data)
        return None

    def end(self, reason: EndReason | None = None) -> End:
        """The end of the run as it stands."""
        told = self._job.context
        return End(
            reason=reason or _REASONS.get(told.finish_reason, "stop"),
            refused=is_refusal(self.citing.answer),
            dropped=self.citing.dropped,
            took_us=told.trace.closed()[0].took_us,
        )

    async def _put(self, events: Sequence[Event]) -> None:
        for event in events:
            await self._queue.put(event)

    async def _token(self, chunk: Any, metadata: dict[str, Any]) -> None:
        if not isinstance(chunk, AIMessageChunk) or metadata.get("langgraph_node") != "model":
            return
        self._job.context.pace.taken()
        if not chunk.text:
            return
        if chunk.id != self._message:
            if self.citing.answer:
                await self._put(await self.citing.feed("\n\n"))
            self._message = chunk.id or ""
        await self._put(await self.citing.feed(str(chunk.text)))

    async def _custom(self, event: object) -> None:
        if isinstance(event, ToolResult):
            self._results.add(event.id)
        if isinstance(event, Retrieval | ToolCall | ToolResult):
            await self._queue.put(event)

    async def _update(self, data: dict[str, Any]) -> None:
        """Results that no tool gave: a person has refused a call, or answered in its place."""
        for node, update in data.items():
            if node == "tools" or not isinstance(update, dict):
                continue
            for message in update.get("messages", ()):
                if isinstance(message, ToolMessage) and message.tool_call_id not in self._results:
                    await self._queue.put(_decided(message))


def _decided(message: ToolMessage) -> ToolResult:
    return ToolResult(
        id=message.tool_call_id,
        name=message.name or "",
        status="refused" if message.status == "error" else "ok",
        content=str(message.text),
    )


def _failed(error: BaseException) -> Error:
    if isinstance(error, ModelError):
        told = error.event
        return Error(code=error.code, kind=told.kind, message=told.message, retryable=told.retryable)
    if isinstance(error, MainspringError):
        return _error(error, "failed")
    if isinstance(error, GraphRecursionError):
        endless = ServiceError(
            "the model went on asking for tools without an end",
            code="MS-4303",
            why="it was offered no more tools, and asked all the same",
            fix="use a model that handles tools, or an assistant without them",
        )
        return _error(endless, "failed")
    ours = InternalError(
        "something in the assistant went wrong",
        code="MS-7030",
        why=f"{type(error).__name__}: {error}",
        fix="report what the server's log says of it",
    )
    return _error(ours, "internal")


def _error(error: MainspringError, kind: str, *, retryable: bool = False) -> Error:
    return Error(code=error.code, kind=kind, message=error.what, retryable=retryable)
