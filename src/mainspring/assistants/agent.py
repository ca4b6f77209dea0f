"""An assistant over LangChain's `create_agent`: threads, runs, approvals, cancellation."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware
from langchain.agents.middleware.human_in_the_loop import InterruptOnConfig
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import BaseTool
from langgraph.types import Command
from msgspec.structs import replace

from mainspring.assistants.chat import ChatMainspring
from mainspring.assistants.checkpointer import MainspringCheckpointer
from mainspring.assistants.context import Ledger, RunContext
from mainspring.assistants.decisions import checked
from mainspring.assistants.events import Event, Interrupt
from mainspring.assistants.messages import lang_messages
from mainspring.assistants.middleware import Answering, Calling, search_tool_name
from mainspring.assistants.runs import Job, Running, interrupt_of
from mainspring.assistants.service import Asked, Parts, Remark, Settings, ThreadView, busy, no_thread
from mainspring.assistants.sources import Sources
from mainspring.assistants.trace import Trace
from mainspring.assistants.usable import Usable
from mainspring.declare.identity import Identity
from mainspring.errors import ConfigError, RefusedError, UsageError
from mainspring.ports.llm import Message
from mainspring.ports.threads import Thread, ThreadStore

__all__ = ["AgentService", "ShownTool", "opened"]

LEASE_US = 15_000_000
"""How long a run has a thread before it must say again that it goes on: so long after a crash the thread is free."""

_QUERY = {
    "type": "object",
    "properties": {"query": {"type": "string", "description": "what to look for, in a few words"}},
    "required": ["query"],
    "additionalProperties": False,
}


class ShownTool(BaseTool):
    """What the model is shown of a tool; `Calling` carries it out, with the caller's rights."""

    def _run(self, **arguments: Any) -> Any:
        raise NotImplementedError("it is carried out by the assistant's middleware")


def opened(settings: Settings, parts: Parts) -> AgentService:
    """As `mainspring.assistants.service.open_assistant`."""
    return AgentService(settings, parts)


class AgentService:
    """An `AssistantService` over a LangChain agent.

    Args:
        settings: how it answers.
        parts: what it is put together from.
    """

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self.settings = settings
        self._parts = parts
        approved = [usable for usable in self._usables() if usable.approve]
        if approved and parts.threads is None:
            raise ConfigError(
                f"assistant {settings.name!r} has nowhere to wait for an approval",
                code="MS-3061",
                why=f"tool {approved[0].name!r} needs one, which may take days and outlive this process",
                fix='configure threads: threads.adapter = "sqlite", or threads.url = "postgresql://..."',
            )
        self._saver = None if parts.threads is None else MainspringCheckpointer(parts.threads.checkpointer)
        self._asks = bool(approved)
        self._revisions: tuple[int, ...] = ()
        self._build()
        self._running = Running(settings, parts)

    def _usables(self) -> Sequence[Usable]:
        """Its own tools, and those of servers outside as they are now."""
        return [*self._parts.usables, *(usable for outside in self._parts.outside for usable in outside.usables())]

    def _build(self) -> None:
        self._revisions = tuple(outside.revision for outside in self._parts.outside)
        usables = self._usables()
        self._kept = None if self._saver is None else self._graph(self._saver, usables)
        self._unkept = self._graph(None, usables)

    def _keep_up(self) -> None:
        """Take over what servers outside offer by now."""
        if self._revisions != tuple(outside.revision for outside in self._parts.outside):
            self._build()

    @property
    def indexes(self) -> tuple[str, ...]:
        """The indexes that it knows."""
        return tuple(self._parts.searchers)

    def _graph(self, saver: MainspringCheckpointer | None, having: Sequence[Usable]) -> Any:
        settings, parts = self.settings, self._parts
        usables = {usable.name: usable for usable in having}
        model = ChatMainspring(
            model=settings.model,
            generate=parts.generate,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
        )
        tools = [_shown(usable.name, usable.description, usable.schema) for usable in having]
        if not settings.always:
            tools += [
                _shown(search_tool_name(index), f"Search the documents of {index}.", _QUERY) for index in self.indexes
            ]
        middleware: list[AgentMiddleware[Any, Any, Any]] = [
            Answering(usables, always=settings.always, max_calls=settings.max_calls)
        ]
        approved: dict[str, bool | InterruptOnConfig] = {
            usable.name: _review(usable) for usable in having if usable.approve
        }
        if approved:
            middleware.append(HumanInTheLoopMiddleware(approved))
        middleware.append(Calling(usables, max_calls=settings.max_calls))
        return create_agent(
            model,
            tools,
            system_prompt=settings.instructions or None,
            middleware=middleware,
            context_schema=RunContext,
            checkpointer=saver,
        )

    # -- runs ---------------------------------------------------------------------------------------------------------

    async def run(self, asked: Asked, caller: Identity) -> AsyncGenerator[Event, None]:
        """As `AssistantService.run`."""
        thread, made = asked.thread, False
        if thread:
            await self._owned(thread, caller)
        elif self._asks:
            thread, made = (await self.create_thread(caller)).thread_id, True
        run = asked.run or secrets.token_hex(16)
        addition = "\n\n".join(message.text for message in asked.messages if message.role == "system")
        said = [message for message in asked.messages if message.role != "system"]
        async with self._having(thread, run):
            if thread and not made:
                await self._refuse_waiting(thread)
            job = self._job(run, thread, caller, {"messages": lang_messages(said)}, _question(said), addition)
            if made:
                job = replace(job, drop_thread=True)
            async with aclosing(self._running.events(job)) as events:
                async for event in events:
                    yield event

    async def resume(
        self, thread: str, interrupt: str, decisions: Sequence[Mapping[str, Any]], caller: Identity, run: str = ""
    ) -> AsyncGenerator[Event, None]:
        """As `AssistantService.resume`."""
        await self._owned(thread, caller)
        run = run or secrets.token_hex(16)
        async with self._having(thread, run):
            waiting = await self._waiting(thread)
            if waiting is None or waiting.id != interrupt:
                raise UsageError(
                    f"thread {thread!r} does not wait for {interrupt!r}",
                    code="MS-2512",
                    why="it has been decided already, or was never asked",
                    fix=f"GET /assistants/{self.settings.name}/threads/{thread} shows what it waits for",
                )
            answer = {"decisions": checked(waiting, decisions)}
            job = self._job(run, thread, caller, Command(resume={waiting.id: answer}), "", "")
            async with aclosing(self._running.events(job)) as events:
                async for event in events:
                    yield event

    async def cancel(self, run: str, caller: Identity) -> bool:
        """As `AssistantService.cancel`."""
        return self._running.cancel(run, caller)

    def _job(self, run: str, thread: str, caller: Identity, given: Any, question: str, addition: str) -> Job:
        self._keep_up()
        store = self._parts.threads
        ledger = None if store is None or not thread else _ledger(store, thread, self._parts)
        context = RunContext(
            caller=caller,
            sources=Sources(self._parts.searchers, caller, self.settings.k),
            trace=Trace(self.settings.name),
            ledger=ledger,
            addition=addition,
            grounded=self.settings.grounded,
            generate=None if self._parts.billed is None else self._parts.billed(caller),
        )
        config: dict[str, Any] = {
            "metadata": {"run_id": run, "assistant": self.settings.name},
            "recursion_limit": 8 * (self.settings.max_calls + 2),
        }
        if thread:
            config["configurable"] = {"thread_id": thread}
        return Job(run, thread, caller, self._kept if thread else self._unkept, given, config, context, question)

    def _having(self, thread: str, run: str) -> _Having:
        return _Having(self._parts, self.settings, thread, run)

    async def _waiting(self, thread: str) -> Interrupt | None:
        assert self._kept is not None, "there is a thread"
        state = await self._kept.aget_state({"configurable": {"thread_id": thread}})
        return interrupt_of(state.interrupts, thread) if state.interrupts else None

    async def _refuse_waiting(self, thread: str) -> None:
        waiting = await self._waiting(thread)
        if waiting is not None:
            raise RefusedError(
                f"thread {thread!r} waits for a decision",
                code="MS-5062",
                why="a tool was asked for that a person must agree to",
                fix=f"POST /assistants/{self.settings.name}/threads/{thread}/interrupts/{waiting.id}",
            )

    # -- threads ------------------------------------------------------------------------------------------------------

    def _store(self) -> ThreadStore:
        if self._parts.threads is None:
            raise UsageError(
                f"assistant {self.settings.name!r} keeps no threads",
                code="MS-2514",
                why="it was opened without a store for them",
                fix='configure one: threads.adapter = "sqlite", or threads.url = "postgresql://..."',
            )
        return self._parts.threads

    async def _owned(self, thread: str, caller: Identity) -> Thread:
        found = await asyncio.to_thread(self._store().get, thread)
        if (
            found is None
            or (found.owner, found.tenant, found.assistant) != (caller.user, caller.tenant, self.settings.name)
            or (found.expires_at is not None and found.expires_at <= self._parts.now())
        ):
            raise no_thread(thread, self.settings.name)
        return found

    async def create_thread(self, caller: Identity) -> Thread:
        """As `AssistantService.create_thread`."""
        now = self._parts.now()
        keep = self.settings.keep_us
        thread = Thread(
            secrets.token_urlsafe(24),
            self.settings.name,
            caller.user,
            caller.tenant,
            now,
            now,
            None if keep is None else now + keep,
        )
        await asyncio.to_thread(self._store().create, thread)
        return thread

    async def thread(self, thread: str, caller: Identity) -> ThreadView:
        """As `AssistantService.thread`."""
        return await self._view(await self._owned(thread, caller))

    async def _view(self, thread: Thread) -> ThreadView:
        assert self._kept is not None, "there is a thread"
        state = await self._kept.aget_state({"configurable": {"thread_id": thread.thread_id}})
        messages = tuple(_remark(message) for message in state.values.get("messages", ()))
        waiting = interrupt_of(state.interrupts, thread.thread_id) if state.interrupts else None
        return ThreadView(thread, messages, waiting)

    async def delete_thread(self, thread: str, caller: Identity) -> None:
        """As `AssistantService.delete_thread`."""
        await self._owned(thread, caller)
        self._running.cancel_thread(thread)
        await self._deleted([thread])

    async def _deleted(self, threads: Sequence[str]) -> int:
        self._parts.forget(threads)
        return await asyncio.to_thread(self._store().delete, list(threads))

    async def export(self, caller: Identity) -> list[ThreadView]:
        """As `AssistantService.export`."""
        owned = await asyncio.to_thread(self._store().owned, caller.user, caller.tenant, self.settings.name)
        return [await self._view(thread) for thread in owned]

    async def erase(self, caller: Identity) -> int:
        """As `AssistantService.erase`."""
        owned = await asyncio.to_thread(self._store().owned, caller.user, caller.tenant, self.settings.name)
        for thread in owned:
            self._running.cancel_thread(thread.thread_id)
        return await self._deleted([thread.thread_id for thread in owned])

    async def sweep(self) -> int:
        """As `AssistantService.sweep`."""
        store = self._store()
        expired = await asyncio.to_thread(store.expired, self._parts.now())
        return await self._deleted(list(expired)) if expired else 0

    async def close(self) -> None:
        """As `AssistantService.close`."""
        await self._running.close()


class _Having:
    """Has a thread for one run: claimed at the start, said again while it goes on, let go at the end."""

    def __init__(self, parts: Parts, settings: Settings, thread: str, run: str) -> None:
        self._parts = parts
        self._settings = settings
        self._thread = thread
        self._run = run
        self._renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        if not self._thread:
            return
        if not await asyncio.to_thread(self._claim):
            raise busy(self._thread)
        self._renewing = asyncio.create_task(self._renew())

    async def __aexit__(self, *failed: object) -> None:
        if self._renewing is None:
            return
        self._renewing.cancel()
        await asyncio.shield(asyncio.to_thread(self._let_go))

    def _claim(self) -> bool:
        now = self._parts.now()
        store = self._parts.threads
        return store is not None and store.claim(self._thread, self._run, now, now + LEASE_US)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(LEASE_US / 3e6)
            await asyncio.to_thread(self._claim)

    def _let_go(self) -> None:
        store = self._parts.threads
        if store is not None:
            keep, now = self._settings.keep_us, self._parts.now()
            store.touch(self._thread, now, None if keep is None else now + keep)
            store.release(self._thread, self._run)


def _shown(name: str, description: str, schema: Mapping[str, object]) -> BaseTool:
    return ShownTool(name=name, description=description, args_schema=dict(schema))


def _review(usable: Usable) -> InterruptOnConfig:
    return InterruptOnConfig(allowed_decisions=["approve", "edit", "reject", "respond"], description=usable.description)


def _ledger(store: ThreadStore, thread: str, parts: Parts) -> Ledger:
    return Ledger(
        begin=lambda call: store.begin_call(thread, call, parts.now()),
        finish=lambda call, result: store.finish_call(thread, call, result),
    )


def _question(messages: Sequence[Message]) -> str:
    return next((message.text for message in reversed(messages) if message.role == "user"), "")


def _remark(message: BaseMessage) -> Remark:
    calls: tuple[Mapping[str, object], ...] = ()
    if isinstance(message, AIMessage):
        calls = tuple(
            {"id": call["id"], "name": call["name"], "arguments": call["args"]} for call in message.tool_calls
        )
    roles = {"human": "user", "ai": "assistant"}
    return Remark(roles.get(message.type, message.type), str(message.text), message.name or "", calls)
