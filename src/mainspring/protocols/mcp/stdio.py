"""MCP over a process's own input and output: a line is a message."""

from __future__ import annotations

import asyncio
from typing import Protocol

from mainspring.declare.identity import Identity
from mainspring.protocols.mcp.messages import INVALID_REQUEST, Message, RpcError, failure, read
from mainspring.protocols.mcp.server import McpServer

__all__ = ["LineReader", "LineWriter", "serve_stdio"]

_AT_ONCE = 16
"""Requests under way; a client that asks for more waits."""


class LineReader(Protocol):
    """Where messages come from, as `asyncio.StreamReader` is one."""

    async def readline(self) -> bytes:
        """The next line; empty at the end."""


class LineWriter(Protocol):
    """Where answers go, as `asyncio.StreamWriter` is one."""

    def write(self, data: bytes) -> None:
        """Send."""

    async def drain(self) -> None:
        """Wait until there is room."""


async def serve_stdio(server: McpServer, caller: Identity, reader: LineReader, writer: LineWriter) -> None:
    """Answer until the input ends; ``notifications/cancelled`` stops a request.

    Args:
        server: what answers.
        caller: who has started the process: all requests have its rights.
        reader: the input.
        writer: the output; nothing else may be written to it.
    """
    await _Session(server, caller, writer).serve(reader)


class _Session:
    def __init__(self, server: McpServer, caller: Identity, writer: LineWriter) -> None:
        self._server = server
        self._caller = caller
        self._writer = writer
        self._writing = asyncio.Lock()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[int | str, asyncio.Task[None]] = {}

    async def serve(self, reader: LineReader) -> None:
        async with asyncio.TaskGroup() as group:
            while line := await self._line(reader):
                if line.strip():
                    await self._take(line, group)
            for task in self._tasks.values():
                task.cancel()

    async def _line(self, reader: LineReader) -> bytes:
        try:
            return await reader.readline()
        except ValueError:  # a line beyond the reader's limit
            await self._send(failure(None, RpcError(INVALID_REQUEST, "the message is too long")))
            return b"\n"

    async def _take(self, line: bytes, group: asyncio.TaskGroup) -> None:
        try:
            message = read(line)
        except RpcError as error:
            await self._send(failure(None, error))
            return
        if message.method == "notifications/cancelled":
            task = self._tasks.get(message.params.get("requestId", ""))
            if task is not None:
                task.cancel()
        elif message.id is not None and message.method:
            await self._room.acquire()
            self._tasks[message.id] = group.create_task(self._answer(message))

    async def _answer(self, message: Message) -> None:
        try:
            answer = await self._server.answered(message, self._caller)
            if answer is not None:
                await self._send(answer)
        finally:
            self._room.release()
            self._tasks.pop(message.id or "", None)

    async def _send(self, answer: bytes) -> None:
        async with self._writing:
            self._writer.write(answer + b"\n")
            await self._writer.drain()
