"""Conversations that outlive a process: whose they are, their checkpoints, and which approved calls were made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

__all__ = ["CallState", "Thread", "ThreadStore"]


class Thread(msgspec.Struct, frozen=True):
    """A conversation; moments are microseconds since 1970.

    Attributes:
        thread_id: unguessable.
        assistant: with whom.
        owner: the user that it belongs to; empty where nobody says who they are.
        tenant: of whom; empty where there are no tenants.
        created_at: when it began.
        used_at: when it was last used.
        expires_at: when it is deleted if nobody uses it, or None.
    """

    thread_id: str
    assistant: str
    owner: str
    tenant: str
    created_at: int
    used_at: int
    expires_at: int | None


class CallState(msgspec.Struct, frozen=True):
    """What is known of a call that must be made once.

    Attributes:
        state: ``new``, it may be made now; ``done``, it has been made; ``unknown``, it was begun and nobody knows
            whether it was made.
        result: what came of it, when it is done.
    """

    state: Literal["new", "done", "unknown"]
    result: str = ""


@runtime_checkable
class ThreadStore(Protocol):
    """Keeps threads. Safe to call from several threads and processes."""

    @property
    def checkpointer(self) -> Any:
        """A LangGraph checkpoint saver over the same database; its methods that are not asynchronous work, all of
        `copy_thread`, `prune` and `delete_for_runs` among them.
        """

    def create(self, thread: Thread) -> None:
        """Keep a new thread."""

    def get(self, thread_id: str) -> Thread | None:
        """A thread, or None."""

    def touch(self, thread_id: str, used_at: int, expires_at: int | None) -> None:
        """Note that a thread has been used."""

    def owned(self, owner: str, tenant: str, assistant: str | None = None) -> Sequence[Thread]:
        """An owner's threads, the newest first; with one assistant, or all."""

    def expired(self, now: int, limit: int = 1000) -> Sequence[str]:
        """Ids of threads whose time is over."""

    def delete(self, thread_ids: Sequence[str]) -> int:
        """Delete threads with their checkpoints and calls, all or nothing, so that no copy stays in the database's
        files; how many there were.
        """

    def claim(self, thread_id: str, run: str, now: int, until: int) -> bool:
        """Let one run have a thread until a moment; whether it has it. A run may renew its own claim."""

    def release(self, thread_id: str, run: str) -> None:
        """End a run's claim; nothing when it has none."""

    def begin_call(self, thread_id: str, call_id: str, now: int) -> CallState:
        """Note that a call is about to be made; of one that was noted before, what is known."""

    def finish_call(self, thread_id: str, call_id: str, result: str) -> None:
        """Note a call's result."""

    def close(self) -> None:
        """Close what is open."""
