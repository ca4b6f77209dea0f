"""The MCP servers that an app's assistants may use, as its settings have them: ``[mcp.NAME]``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from mainspring.assistants.outside import Outside, OutsideServer, open_outside, tool_name
from mainspring.assistants.usable import Usable
from mainspring.config.settings import Setting, Settings, reveal
from mainspring.declare.assistant import Assistant, McpServer
from mainspring.declare.declaration import name_of, origin_of, spec_of
from mainspring.errors import ConfigError
from mainspring.plan.graph import Plan

__all__ = ["close_all", "names_are_apart", "outside_of", "outside_servers", "start_all"]

_TIMEOUT = 30.0


def outside_servers(plan: Plan, settings: Settings) -> Mapping[str, OutsideServer]:
    """The servers of a plan's assistants, by name; nothing is connected.

    Raises:
        ConfigError: MS-3007, a secret is not there; MS-3065, a server is not set, or has both a url and a command;
            MS-3066, no list of tools; MS-3067, a tool that needs approval is not on it.
    """
    nodes = plan.of_kind("mcp")
    return {node.name: _server(cast(McpServer, node.declaration), settings) for node in nodes}


def outside_of(plan: Plan, settings: Settings, told: Callable[[str], None]) -> Mapping[str, Outside]:
    """The same servers, each to be started; without any, nothing is imported.

    Raises:
        ConfigError: as `outside_servers`; MS-3062, the library is not installed.
    """
    return {name: open_outside(server, told) for name, server in outside_servers(plan, settings).items()}


async def start_all(outside: Iterable[Outside]) -> None:
    """Connect to all, and wait until each has answered or failed.

    Raises:
        ConfigError: MS-3063, a server has no such tool.
    """
    await asyncio.gather(*(one.ready() for one in outside))


async def close_all(outside: Iterable[Outside]) -> None:
    """Let go of all."""
    await asyncio.gather(*(one.close() for one in outside))


def names_are_apart(assistant: Assistant, usables: Sequence[Usable], servers: Sequence[OutsideServer]) -> None:
    """No two of an assistant's tools have one name.

    Raises:
        ConfigError: MS-3068.
    """
    seen = {usable.name for usable in usables}
    for server in servers:
        for tool in server.tools:
            name = tool_name(server.name, tool)
            if name in seen:
                raise ConfigError(
                    f"assistant {name_of(assistant)!r} may use two tools called {name!r}",
                    code="MS-3068",
                    why=f"one of them is {tool!r} of the MCP server {server.name!r}; models tell tools apart by names",
                    origin=server.origin,
                    fix=f"give the server another name in app.mcp, or take {tool!r} out of mcp.{server.name}.tools",
                )
            seen.add(name)


def _server(declaration: McpServer, settings: Settings) -> OutsideServer:
    name, spec = name_of(declaration), spec_of(declaration)
    section = settings.section(f"mcp.{name}")
    url, command = section.get("url"), section.get("command")
    if (url is None) == (command is None) or (command is not None and not command.value):
        raise ConfigError(
            f"MCP server {name!r} has {'no place' if url is None else 'two places'} in profile {settings.profile!r}",
            code="MS-3065",
            why="it is either at a url or started by a command",
            origin=str(origin_of(declaration)) if url is None else url.origin,
            fix=f'add [mcp.{name}] to mainspring.toml, with url = "https://HOST/mcp" or command = ["PROGRAM"]',
        )
    place = cast(Setting, url or command)
    tools = _texts(section.get("tools"))
    if not tools:
        raise ConfigError(
            f"MCP server {name!r} has no list of tools that may be used",
            code="MS-3066",
            why="what is not on the list is used by nobody, whatever the server offers",
            origin=place.origin,
            fix=f'mcp.{name}.tools = ["TOOL"]',
        )
    strange = [tool for tool in spec.approve or () if tool not in tools]
    if strange:
        raise ConfigError(
            f"tool {strange[0]!r} of MCP server {name!r} needs approval and may not be used",
            code="MS-3067",
            why=f"app.mcp names it in approve=, and mcp.{name}.tools has only: {', '.join(tools)}",
            origin=str(origin_of(declaration)),
            fix="name it in both as the server does: a name that is misspelt would protect nothing",
        )
    timeout = section.get("timeout")
    return OutsideServer(
        name,
        tools,
        url="" if url is None else reveal(url, settings.project),
        headers=_revealed(section, "headers.", settings),
        command=_texts(command),
        folder=str(settings.project),
        environment=_revealed(section, "environment.", settings),
        timeout=_TIMEOUT if timeout is None else float(cast(float, timeout.value)),
        approve=spec.approve,
        allow=spec.allow,
        origin=place.origin,
    )


def _texts(setting: Setting | None) -> tuple[str, ...]:
    return () if setting is None else tuple(map(str, cast(Sequence[object], setting.value)))


def _revealed(section: Mapping[str, Setting], prefix: str, settings: Settings) -> Mapping[str, str]:
    return {
        key.removeprefix(prefix): reveal(setting, settings.project)
        for key, setting in section.items()
        if key.startswith(prefix)
    }
