"""Tools of MCP servers outside: only those that are allowed, under their server's name, each within its time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.tools import BaseTool
from langchain_mcp_adapters.client import MultiServerMCPClient

from mainspring.errors import ConfigError, ServiceError

__all__ = ["OutsideServer", "outside_tools"]


@dataclass(frozen=True, slots=True)
class OutsideServer:
    """An MCP server whose tools an assistant may use.

    Attributes:
        name: its tools are called ``name_tool``.
        allow: the tools that may be used, by their own names; no others are shown to the model.
        url: of a server over streamable HTTP; empty for one that is started.
        headers: sent to it, such as ``Authorization``.
        command: the program and its arguments, of a server over stdio.
        environment: what the program is given, and nothing else.
        timeout: seconds of one call, and of the first connection.
    """

    name: str
    allow: tuple[str, ...]
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 30.0


async def outside_tools(servers: Sequence[OutsideServer]) -> list[BaseTool]:
    """The allowed tools of all servers, as LangChain tools.

    Raises:
        ConfigError: MS-3063, a server has no such tool.
        ServiceError: MS-4304, a server does not answer.
    """
    found = await asyncio.gather(*(_tools(server) for server in servers))
    return [tool for tools in found for tool in tools]


async def _tools(server: OutsideServer) -> list[BaseTool]:
    client = MultiServerMCPClient({server.name: _connection(server)}, tool_name_prefix=True)
    try:
        async with asyncio.timeout(server.timeout):
            offered = await client.get_tools()
    except Exception as error:  # of any transport, often a group of them
        raise ServiceError(
            f"MCP server {server.name!r} does not answer",
            code="MS-4304",
            why=f"{type(error).__name__}: {error}",
            fix="start it, or look at its address and credentials",
        ) from error
    by_name = {tool.name: tool for tool in offered}
    wanted = {f"{server.name}_{name}": name for name in server.allow}
    missing = [name for full, name in wanted.items() if full not in by_name]
    if missing:
        known = ", ".join(name.removeprefix(f"{server.name}_") for name in by_name)
        raise ConfigError(
            f"MCP server {server.name!r} has no tool {missing[0]!r}",
            code="MS-3063",
            why=f"it has: {known or 'none'}",
            fix="allow only tools that it has",
        )
    tools = [by_name[full] for full in wanted]
    for tool in tools:
        tool.metadata = {**(tool.metadata or {}), "timeout": server.timeout}
    return tools


def _connection(server: OutsideServer) -> Any:
    if server.url:
        return {"transport": "streamable_http", "url": server.url, "headers": dict(server.headers)}
    program, *arguments = server.command
    return {"transport": "stdio", "command": program, "args": arguments, "env": dict(server.environment)}
