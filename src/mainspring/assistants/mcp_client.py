"""Tools of MCP servers outside: only those that are allowed, under their server's name, each within its time.

A server has one connection, which a task keeps: MCP's sessions must be closed by the task that opened them. Before each
call the server is asked whether it is there; when it is not, the connection is opened again, so that a call is made
once and a server that was restarted is used again at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import msgspec
from langchain_mcp_adapters.client import MultiServerMCPClient
from mcp import ClientSession, McpError
from mcp.types import CONNECTION_CLOSED, CallToolResult
from mcp.types import Tool as McpTool

from mainspring.assistants.outside import OutsideServer, tool_name
from mainspring.assistants.usable import ToolFailedError, Usable
from mainspring.declare.identity import Identity
from mainspring.errors import ConfigError, ServiceError
from mainspring.llm.schemas import loosened

__all__ = ["McpOutside", "opened"]

_AGAIN_SECONDS = 15.0
"""Between two tries to reach a server that nobody asks for."""
_PING_SECONDS = 5.0
_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]+@")
"""Of an address; transports name addresses in their errors."""
_ANYTHING: Mapping[str, object] = {"type": "object", "properties": {}, "additionalProperties": True}


def opened(server: OutsideServer, told: Callable[[str], None]) -> McpOutside:
    """As `mainspring.assistants.outside.open_outside`."""
    return McpOutside(server, told)


class _Link:
    """One connection while it lasts."""

    def __init__(self, session: ClientSession) -> None:
        self.session = session
        self.gone = asyncio.Event()


class McpOutside:
    """As `mainspring.assistants.outside.Outside`.

    Args:
        server: what it is.
        told: told what a person should know.
    """

    def __init__(self, server: OutsideServer, told: Callable[[str], None]) -> None:
        self.server = server
        self.revision = 0
        self.fault = ""
        self._told = told
        self._offered: Mapping[str, McpTool] | None = None
        self._schemas: Mapping[str, Mapping[str, object]] = {}
        self._link: _Link | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()

    # -- what it offers ------------------------------------------------------------------------------------------------

    def usables(self) -> Sequence[Usable]:
        """As `Outside.usables`."""
        return [
            self._usable(name)
            for name in self.server.tools
            if self._offered is None or name in self._offered  # what a server has not, no model is shown
        ]

    def _usable(self, name: str) -> Usable:
        server = self.server
        offered = None if self._offered is None else self._offered[name]

        async def call(arguments: bytes, caller: Identity) -> object:
            return await self._call(name, msgspec.json.decode(arguments or b"{}", type=dict[str, Any]))

        return Usable(
            tool_name(server.name, name),
            f"{name} of {server.name}." if offered is None else offered.description or offered.title or name,
            _ANYTHING if offered is None else self._schemas[name],
            call,
            server.timeout,
            server.asks(name),
            server.allow,
        )

    def _take(self, offered: Mapping[str, McpTool]) -> None:
        if offered != self._offered:
            self._offered = offered
            # One odd schema would make the engine refuse every question; the server checks its arguments itself.
            self._schemas = {name: loosened(tool.inputSchema) for name, tool in offered.items()}
            self.revision += 1
        if missing := self._missing():
            self._tell_fault(missing.lines())

    def _missing(self) -> ConfigError | None:
        offered = self._offered
        missing = [] if offered is None else [name for name in self.server.tools if name not in offered]
        if not missing:
            return None
        return ConfigError(
            f"MCP server {self.server.name!r} has no tool {missing[0]!r}",
            code="MS-3063",
            why=f"it has: {', '.join(sorted(offered or ())) or 'none'}",
            origin=self.server.origin,
            fix=f"let mcp.{self.server.name}.tools name only tools that it has",
        )

    # -- the connection ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """As `Outside.start`."""
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep(), name=f"mcp {self.server.name}")

    async def ready(self) -> None:
        """As `Outside.ready`."""
        self.start()
        await self._settled.wait()
        if (missing := self._missing()) is not None:
            raise missing

    async def close(self) -> None:
        """As `Outside.close`."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
            self._keeping = None
        self._settled.set()

    async def _keep(self) -> None:
        """Keep a connection; a lost one is opened again when a call needs it, or after a while."""
        while True:
            self._wanted.clear()
            try:
                await self._connected()
            except Exception as error:  # of any transport, often a group of them
                self._tell_fault(self._no_answer(error).lines())
            finally:
                lost, self._link = self._link, None
                if lost is None:
                    self._settled.set()  # the try has failed; whoever waits for a lost one waits for the next try
                else:
                    lost.gone.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), _AGAIN_SECONDS)

    async def _connected(self) -> None:
        """Connect, learn the tools, and hold the connection until it is gone."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(self.server.timeout):
                client = MultiServerMCPClient({self.server.name: _connection(self.server)})
                session = await stack.enter_async_context(client.session(self.server.name))
                self._take(await _tools_of(session))
            self._link = _Link(session)
            if self._missing() is None:
                self.fault = ""
            self._settled.set()
            await self._link.gone.wait()

    def _tell_fault(self, lines: str) -> None:
        if lines != self.fault:
            self.fault = lines
            self._told(lines)

    def _no_answer(self, error: BaseException) -> ServiceError:
        first = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        why = f"nothing within {self.server.timeout:g} seconds" if isinstance(first, TimeoutError) else ""
        return ServiceError(
            f"MCP server {self.server.name!r} does not answer",
            code="MS-4304",
            why=why or _PASSWORD.sub(r"\1:******@", f"{type(first).__name__}: {first}"),
            origin=self.server.origin,
            fix="start it, or look at its address and credentials; it is tried again",
        )

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def _call(self, tool: str, arguments: dict[str, Any]) -> object:
        link = await self._alive()
        limit = timedelta(seconds=self.server.timeout)
        asking = asyncio.create_task(link.session.call_tool(tool, arguments, limit))
        going = asyncio.create_task(link.gone.wait())
        try:
            await asyncio.wait({asking, going}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise self._no_answer(ConnectionError("it left during the call"))
            return _told_by(asking.result())
        except McpError as error:
            if error.error.code == CONNECTION_CLOSED:
                raise self._no_answer(error) from error
            raise ToolFailedError(error.error.message) from error
        finally:
            asking.cancel()
            going.cancel()

    async def _alive(self) -> _Link:
        """A connection whose server has just answered.

        Raises:
            ServiceError: MS-4304.
        """
        held = self._link
        if held is not None:
            try:
                async with asyncio.timeout(_PING_SECONDS):
                    await held.session.send_ping()
                return held
            except Exception:  # whatever it is, the connection is of no use
                held.gone.set()
        self.start()
        if self._link is held:
            self._settled.clear()
            self._wanted.set()
            await self._settled.wait()
        if self._link is None or self._link is held:
            raise self._no_answer(ConnectionError(self.fault.partition("\n")[0] or "it is being stopped"))
        return self._link


async def _tools_of(session: ClientSession) -> Mapping[str, McpTool]:
    found: dict[str, McpTool] = {}
    cursor: str | None = None
    while True:
        page = await session.list_tools(cursor)
        found |= {tool.name: tool for tool in page.tools}
        cursor = page.nextCursor
        if not cursor:
            return found


def _told_by(result: CallToolResult) -> object:
    """A result as the model reads it: its texts; of anything else what it is.

    Raises:
        ToolFailedError: the tool says that it failed.
    """
    parts = []
    for block in result.content:
        if block.type == "text":
            parts.append(block.text)
        elif block.type == "resource" and hasattr(block.resource, "text"):
            parts.append(block.resource.text)
        else:
            parts.append(f"[{block.type}]")
    text = "\n".join(parts)
    if result.isError:
        raise ToolFailedError(text)
    return text if text or result.structuredContent is None else result.structuredContent


def _connection(server: OutsideServer) -> Any:
    if server.url:
        limit = timedelta(seconds=server.timeout)
        return {
            "transport": "streamable_http",
            "url": server.url,
            "headers": dict(server.headers),
            "timeout": limit,
            "sse_read_timeout": limit,
        }
    program, *arguments = server.command
    return {
        "transport": "stdio",
        "command": program,
        "args": arguments,
        "env": dict(server.environment),
        "cwd": server.folder or None,
    }
