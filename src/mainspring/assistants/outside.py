"""MCP servers outside as the rest of the house sees them; nothing of MCP is imported here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mainspring.assistants.usable import Usable
from mainspring.lazy import lazy

__all__ = ["Outside", "OutsideServer", "open_outside", "tool_name"]

_client = lazy("mainspring.assistants.mcp_client")

_MOST_NAME = 64
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class OutsideServer:
    """An MCP server whose tools an assistant may use.

    Attributes:
        name: its tools are called ``name_tool``.
        tools: those that may be used, by their own names; no others are shown to the model.
        url: of a server over streamable HTTP; empty for one that is started.
        headers: sent to it, such as ``Authorization``.
        command: the program and its arguments, of a server over stdio.
        folder: where the program is started.
        environment: what the program is given beside ``PATH``, ``HOME`` and the like; nothing else of ours.
        timeout: seconds of one call, and of connecting.
        approve: the tools to each call of which a person must agree, by their own names; None is all of them.
        allow: principals that may cause a call; empty is everybody.
        origin: where it is set, for errors.
    """

    name: str
    tools: tuple[str, ...]
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    command: tuple[str, ...] = ()
    folder: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 30.0
    approve: tuple[str, ...] | None = ()
    allow: tuple[str, ...] = ()
    origin: str = ""

    def asks(self, tool: str) -> bool:
        """Whether a person must agree to each call of a tool."""
        return self.approve is None or tool in self.approve


class Outside(Protocol):
    """A server with a connection that is kept, and opened again when it breaks. Used on one event loop."""

    @property
    def server(self) -> OutsideServer:
        """What it is."""

    @property
    def revision(self) -> int:
        """Rises whenever `usables` answers otherwise."""

    @property
    def fault(self) -> str:
        """Why it does not answer at present, or empty."""

    def usables(self) -> Sequence[Usable]:
        """Its allowed tools; while it has not been reached they are there by their names alone."""

    def start(self) -> None:
        """Begin to connect; does not wait."""

    async def ready(self) -> None:
        """Wait until it has been reached or the first try has failed; a server that is down is no error here.

        Raises:
            ConfigError: MS-3063, it has no such tool.
        """

    async def close(self) -> None:
        """Let it go; a program that was started is stopped."""


def open_outside(server: OutsideServer, told: Callable[[str], None] = lambda line: None) -> Outside:
    """A server that is not connected yet; MCP is imported here, and not before.

    Args:
        server: what it is.
        told: told what a person should know, once for each fault that begins.

    Raises:
        ConfigError: MS-3062, the library is not installed.
    """
    outside: Outside = _client.opened(server, told)
    return outside


def tool_name(server: str, tool: str) -> str:
    """What the model calls a server's tool: ``SERVER_TOOL``, in the characters and the length that models take."""
    return _NO_NAME.sub("_", f"{server}_{tool}")[:_MOST_NAME]
