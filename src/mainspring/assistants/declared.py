"""A declared assistant as what `open_assistant` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mainspring.assistants.service import Settings
from mainspring.assistants.usable import Usable, of_tool
from mainspring.declare.assistant import Assistant, McpServer, Tool
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.llm import LLM, Prompt
from mainspring.errors import ConfigError

__all__ = ["settings_of", "tool_threads", "usables_of"]

_TOOLS_AT_ONCE = 32


def settings_of(assistant: Assistant, render: Callable[[Prompt], str]) -> Settings:
    """How a declared assistant answers.

    Args:
        assistant: the declaration.
        render: the text of a declared prompt that has a value for each of its variables.
    """
    spec = spec_of(assistant)
    instructions = spec.instructions if isinstance(spec.instructions, str) else render(spec.instructions)
    model = spec_of(spec.llm) if isinstance(spec.llm, LLM) else spec_of(spec_of(spec.llm).first)
    return Settings(
        name=name_of(assistant),
        model=name_of(spec.llm),
        instructions=instructions,
        k=spec.k,
        always=spec.always,
        grounded=spec.grounded,
        max_calls=spec.max_calls,
        timeout=spec.timeout_us / 1e6,
        keep_us=spec.keep_us,
        max_tokens=model.max_tokens,
        temperature=model.temperature,
    )


def tool_threads() -> ThreadPoolExecutor:
    """Threads for tools alone: one that hangs holds up no retrieval and no checkpoint."""
    return ThreadPoolExecutor(_TOOLS_AT_ONCE, "mainspring-tool")


def usables_of(assistant: Assistant, threads: ThreadPoolExecutor, others: Mapping[str, Usable]) -> Sequence[Usable]:
    """The tools of a declared assistant, in order; those of MCP servers are theirs to tell.

    Args:
        assistant: the declaration.
        threads: as `tool_threads` makes them.
        others: its endpoints and feature views, by name, as `of_endpoint` and `of_features` make them.

    Raises:
        ConfigError: MS-3064, an endpoint or a view is not served here.
    """
    found = []
    for used in spec_of(assistant).may:
        if isinstance(used, Tool):
            found.append(of_tool(used, threads))
            continue
        if isinstance(used, McpServer):
            continue
        name = name_of(used)
        if name not in others:
            raise ConfigError(
                f"assistant {name_of(assistant)!r} may use {name!r}, which is not served here",
                code="MS-3064",
                why="an endpoint or a feature view is a tool only of the process that serves it",
                fix="serve it too: mainspring serve without names serves all",
            )
        found.append(others[name])
    return found
