"""Keeps llama.cpp running: a process that ends without being told to is started again, later each time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from mainspring.adapters.llamacpp.process import Child, clear_away
from mainspring.ports.llm import Error, Failed
from mainspring.upstream.backoff import Backoff
from mainspring.upstream.client import Client, Place
from mainspring.upstream.faults import BrokenError

__all__ = ["Supervisor"]


def _crashed() -> BrokenError:
    return BrokenError(Error("crashed", "the engine has crashed; it is being started again", retryable=True))


class Supervisor:
    """One child at a time, and the client to it.

    Args:
        told: what the child is told, but for its key and socket.
        load: seconds that a start may take.
        connections: that are kept.
        backoff: how long to wait before the next start.

    Attributes:
        starts: how often it was started.
    """

    def __init__(
        self, told: Mapping[str, object], load: float, connections: int, backoff: Callable[[], Backoff] = Backoff
    ) -> None:
        self._told = told
        self._load = load
        self._connections = connections
        self._backoff = backoff()
        self._child: Child | None = None
        self._client: Client | None = None
        self._watching: asyncio.Task[None] | None = None
        self._again_at = 0.0
        self.starts = 0

    @property
    def client(self) -> Client | None:
        """The client to the child that runs, or None while there is none."""
        return self._client if self._child is not None and self._child.alive else None

    @property
    def pid(self) -> int:
        """The child's process, 0 when there is none."""
        return self._child.pid if self._child is not None and self._child.alive else 0

    def down(self) -> Error:
        """What a request is told while no child runs."""
        if self._watching is None or self._watching.done():
            return Error("crashed", "the engine is not running", retryable=True)
        left = max(0.1, self._again_at - asyncio.get_running_loop().time())
        return Error("crashed", "the engine has crashed; it is being started again", retryable=True, retry_after=left)

    async def start(self) -> Failed | None:
        """Start it, if it does not run; from then on it is watched."""
        if self.client is not None:
            return None
        await self.stop()
        clear_away()
        failed = await self._start()
        if failed is None:
            self._watching = asyncio.create_task(self._watch())
        return failed

    async def _start(self) -> Failed | None:
        self.starts += 1
        child = Child()
        try:
            failed = await child.start(self._told, self._load)
        except asyncio.CancelledError:
            child.kill()
            raise
        if failed is None:
            place = Place(socket=child.socket, headers={"authorization": f"Bearer {child.key}"}, idle=self._connections)
            self._child, self._client = child, Client(place, _crashed)
        return failed

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while self._child is not None:
            begun = loop.time()
            await self._child.exited.wait()
            held = loop.time() - begun
            failed: Failed | None = Failed("")
            while failed is not None:
                wait = self._backoff.failed(held)
                self._again_at = loop.time() + wait
                await asyncio.sleep(wait)
                failed, held = await self._start(), 0.0

    async def stop(self) -> None:
        """End the child and what watches it."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        if self._client is not None:
            await self._client.aclose()
        if self._child is not None:
            await self._child.stop()
        self._child = self._client = None

    def kill(self) -> None:
        """End the child at once; for a process that ends."""
        if self._watching is not None and not self._watching.get_loop().is_closed():
            self._watching.cancel()
        if self._child is not None:
            self._child.kill()
