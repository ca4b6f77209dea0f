"""An assistant as the rest of the house sees it; nothing of LangChain is imported here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from mainspring.assistants.events import Event, Interrupt
from mainspring.assistants.outside import Outside
from mainspring.assistants.trace import RunRecord
from mainspring.assistants.usable import Usable
from mainspring.declare.identity import Identity
from mainspring.errors import RefusedError, UsageError
from mainspring.lazy import lazy
from mainspring.ports.llm import Event as ModelEvent
from mainspring.ports.llm import Generation, Message
from mainspring.ports.threads import Thread, ThreadStore
from mainspring.rag.search import Searcher

__all__ = [
    "Asked",
    "AssistantService",
    "Parts",
    "Remark",
    "Settings",
    "ThreadView",
    "busy",
    "no_thread",
    "open_assistant",
]

_agent = lazy("mainspring.assistants.agent")


class Settings(msgspec.Struct, frozen=True):
    """How an assistant answers.

    Attributes:
        name: the assistant's.
        model: the model's name at the gateway.
        instructions: what it is told first.
        k: how many chunks are retrieved for a question.
        always: whether it retrieves for each question, or when the model asks for it.
        grounded: whether an answer that stands on nothing is replaced by what the sources say.
        max_calls: most tool calls of one turn.
        timeout: seconds that a run may take.
        keep_us: how long a thread that nobody uses is kept, in microseconds, or None for ever.
        max_tokens: most tokens of an answer, or None for the model's own limit.
        temperature: or None for the model's own.
    """

    name: str
    model: str
    instructions: str = ""
    k: int = 5
    always: bool = True
    grounded: bool = False
    max_calls: int = 8
    timeout: float = 120.0
    keep_us: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None


class Parts(msgspec.Struct, frozen=True):
    """What an assistant is put together from.

    Attributes:
        generate: answers a generation: the gateway in this process. Closing its iterator cancels.
        searchers: the indexes that it knows, by name.
        usables: the tools that it may use.
        outside: servers whose tools it may use beside those.
        threads: where conversations are kept, or None for runs without threads only.
        record: told of each run that is over, for a trace store.
        forget: told of threads that are deleted, for the same.
        billed: `generate` at the expense of somebody; None counts at nobody's.
        on_error: told of what no run should raise, for the log; the client is told nothing of it.
        now: the clock, microseconds since 1970.
    """

    generate: Callable[[Generation], AsyncIterator[ModelEvent]]
    now: Callable[[], int]
    searchers: Mapping[str, Searcher] = msgspec.field(default_factory=dict)
    usables: Sequence[Usable] = ()
    outside: Sequence[Outside] = ()
    threads: ThreadStore | None = None
    record: Callable[[RunRecord], None] | None = None
    forget: Callable[[Sequence[str]], None] = lambda threads: None
    billed: Callable[[Identity], Callable[[Generation], AsyncIterator[ModelEvent]]] | None = None
    on_error: Callable[[BaseException], None] = lambda error: None


class Remark(msgspec.Struct, frozen=True):
    """One message of a thread: who said it, the text, and the calls that it asks for."""

    role: str
    text: str
    name: str = ""
    calls: tuple[Mapping[str, object], ...] = ()


class ThreadView(msgspec.Struct, frozen=True):
    """A thread with what has been said in it, and what it waits for."""

    thread: Thread
    messages: tuple[Remark, ...]
    interrupt: Interrupt | None = None


class Asked(msgspec.Struct, frozen=True):
    """A question.

    Attributes:
        messages: the conversation; in a thread, what is new of it. Those of role ``system`` add to the instructions.
        thread: the thread to go on with, or empty.
        run: the run's id, or empty for a new one; `cancel` names it.
    """

    messages: tuple[Message, ...]
    thread: str = ""
    run: str = ""


class AssistantService(Protocol):
    """An assistant that answers. All methods are called on one event loop; only a thread's owner reaches it."""

    @property
    def settings(self) -> Settings:
        """How it answers."""

    @property
    def indexes(self) -> Sequence[str]:
        """The indexes that it knows."""

    def run(self, asked: Asked, caller: Identity) -> AsyncGenerator[Event, None]:
        """Answer; the events of one run. Closing the iterator stops the run and the model.

        Raises:
            UsageError: MS-2511, the caller has no such thread; before the first event.
            RefusedError: MS-5061, another run has the thread; MS-5062, the thread waits for a decision.
        """

    def resume(
        self, thread: str, interrupt: str, decisions: Sequence[Mapping[str, Any]], caller: Identity, run: str = ""
    ) -> AsyncGenerator[Event, None]:
        """Go on with what waits for a decision; one decision for each call, in order.

        Raises:
            UsageError: MS-2511; MS-2512, the thread does not wait for that; MS-2513, the decisions do not fit.
            RefusedError: MS-5061.
        """

    async def cancel(self, run: str, caller: Identity) -> bool:
        """Stop a run; its last event is ``end`` with reason ``cancelled``. Whether it was going."""

    async def create_thread(self, caller: Identity) -> Thread:
        """A new thread of the caller's.

        Raises:
            UsageError: MS-2514, the assistant keeps no threads.
        """

    async def thread(self, thread: str, caller: Identity) -> ThreadView:
        """What has been said in a thread.

        Raises:
            UsageError: MS-2511.
        """

    async def delete_thread(self, thread: str, caller: Identity) -> None:
        """Delete a thread and all that was said in it.

        Raises:
            UsageError: MS-2511.
        """

    async def export(self, caller: Identity) -> Sequence[ThreadView]:
        """All threads of the caller's with this assistant."""

    async def erase(self, caller: Identity) -> int:
        """Delete all threads of the caller's with this assistant; how many there were."""

    async def sweep(self) -> int:
        """Delete the threads whose time is over; how many there were."""

    async def close(self) -> None:
        """Stop all runs."""


def open_assistant(settings: Settings, parts: Parts) -> AssistantService:
    """Put an assistant together; LangChain is imported here, and not before.

    Raises:
        ConfigError: MS-3061, a tool needs approval and there is nowhere to keep threads; MS-3062, LangChain is not
            installed.
    """
    service: AssistantService = _agent.opened(settings, parts)
    return service


def no_thread(thread: str, assistant: str) -> UsageError:
    """The caller has no such thread; one of somebody else is not there either."""
    return UsageError(
        f"there is no thread {thread!r}",
        code="MS-2511",
        why="it was never there, its time is over, or it is somebody else's",
        fix=f"POST /assistants/{assistant}/threads makes one",
    )


def busy(thread: str) -> RefusedError:
    """Another run has the thread."""
    return RefusedError(
        f"thread {thread!r} is busy",
        code="MS-5061",
        why="a run goes on in it; a thread has one at a time",
        fix="wait for its end, or cancel it",
    )
