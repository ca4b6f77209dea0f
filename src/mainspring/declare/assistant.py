"""Tools, assistants that use them, their evaluations, and what is served and watched of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeAlias, TypeVar, cast

import msgspec

from mainspring.declare.data import FeatureView
from mainspring.declare.declaration import Declaration, DeclaredKind
from mainspring.declare.documents import Index
from mainspring.declare.llm import AnyLLM, Prompt
from mainspring.declare.model import Endpoint
from mainspring.declare.origin import Origin
from mainspring.declare.signature import Signature

__all__ = [
    "Assistant",
    "AssistantEndpoint",
    "AssistantEndpointSpec",
    "AssistantMonitor",
    "AssistantMonitorSpec",
    "AssistantSpec",
    "Evaluation",
    "EvaluationSpec",
    "McpServer",
    "McpServerSpec",
    "Served",
    "Tool",
    "ToolSpec",
    "Usable",
]

P = ParamSpec("P")
R = TypeVar("R")


class ToolSpec(msgspec.Struct, frozen=True):
    """A function that an assistant may call.

    Attributes:
        function: what is called; it may be a coroutine function.
        signature: its parameters as the model sees them.
        timeout_us: the longest that a call may take, in microseconds.
        approve: whether a person must agree to each call.
        allow: principals that may cause a call; empty is everybody who may use the assistant.
        retries: further attempts after a failure; only for what may be repeated.
    """

    function: Callable[..., object]
    signature: Signature
    timeout_us: int
    approve: bool
    allow: tuple[str, ...]
    retries: int


class Tool(Declaration[ToolSpec], Generic[P, R]):
    """A declared tool; calling it in Python runs the plain function."""

    def __init__(self, spec: ToolSpec, origin: Origin, name: str) -> None:
        super().__init__(DeclaredKind.TOOL, spec, origin, name)
        self.__wrapped__ = spec.function
        self.__doc__ = spec.function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the plain function, in process."""
        return cast(R, self._spec.function(*args, **kwargs))


class McpServerSpec(msgspec.Struct, frozen=True):
    """An MCP server outside, whose tools assistants may use.

    Attributes:
        approve: its tools, by their own names, to each call of which a person must agree; None is all of them.
        allow: principals that may cause a call; empty is everybody who may use the assistant.
    """

    approve: tuple[str, ...] | None
    allow: tuple[str, ...]


class McpServer(Declaration[McpServerSpec]):
    """A declared MCP server; where it is and which of its tools may be used is the profile's business."""

    __slots__ = ()

    def __init__(self, spec: McpServerSpec, origin: Origin, name: str) -> None:
        super().__init__(DeclaredKind.MCP, spec, origin, name)


Usable: TypeAlias = Tool[..., object] | McpServer | Endpoint | FeatureView


class AssistantSpec(msgspec.Struct, frozen=True):
    """An assistant: a model with instructions, knowledge and tools.

    Attributes:
        llm: the model.
        knows: indexes that it answers from.
        may: tools, those of MCP servers, and endpoints and feature views of the app as tools.
        instructions: what it is told first.
        k: how many chunks are retrieved for a question.
        always: whether it retrieves before each answer (true), or when the model asks for it.
        grounded: whether an answer that stands on no source and on no tool is replaced by what the sources say.
        max_calls: most tool calls of one run.
        timeout_us: the longest that a run may take, in microseconds.
        keep_us: how long a thread that nobody uses is kept, in microseconds, or None for ever.
    """

    llm: AnyLLM
    knows: tuple[Index, ...]
    may: tuple[Usable, ...]
    instructions: str | Prompt
    k: int
    always: bool
    grounded: bool
    max_calls: int
    timeout_us: int
    keep_us: int | None


class Assistant(Declaration[AssistantSpec]):
    """A declared assistant."""

    __slots__ = ()

    def __init__(self, spec: AssistantSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.ASSISTANT, spec, origin, name)


class EvaluationSpec(msgspec.Struct, frozen=True):
    """Cases that an assistant or an index is tried on.

    Attributes:
        target: what is tried.
        cases: a file of JSON lines, relative to the project.
        function: judges one answer: ``def grounded(answer, case) -> bool``; None for the built-in measures alone.
        least: the least value of each measure; below it, ``mainspring run`` refuses (exit 5).
        judge: a model that judges too, or None.
    """

    target: Assistant | Index
    cases: str
    function: Callable[[object, dict[str, object]], bool | float] | None
    least: tuple[tuple[str, float], ...]
    judge: AnyLLM | None


class Evaluation(Declaration[EvaluationSpec]):
    """A declared evaluation."""

    __slots__ = ()

    def __init__(self, spec: EvaluationSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.EVALUATION, spec, origin, name)


Served: TypeAlias = Assistant | Index | AnyLLM


class AssistantEndpointSpec(msgspec.Struct, frozen=True):
    """An assistant, index or language model behind HTTP.

    Attributes:
        target: what answers.
        latency_us: the promised time to the first token, in microseconds, or None.
        log: the share of calls whose bodies the trace store keeps, in [0, 1].
    """

    target: Served
    latency_us: int | None
    log: float


class AssistantEndpoint(Declaration[AssistantEndpointSpec]):
    """A declared endpoint of something that answers in words."""

    __slots__ = ()

    def __init__(self, spec: AssistantEndpointSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.ENDPOINT, spec, origin, name)


class AssistantMonitorSpec(msgspec.Struct, frozen=True):
    """What is watched of an assistant.

    Attributes:
        target: whose traces are watched.
        watch: evaluations by name, ``latency``, ``cost``, ``tokens``, ``retrieval``, ``errors``, ``timeouts``,
            ``refusals``, ``tools``, ``uncited``, ``dropped``; all when empty.
        false_alarms: the alarm budget, as written: ``1 per quarter``.
    """

    target: Assistant
    watch: tuple[str, ...]
    false_alarms: str


class AssistantMonitor(Declaration[AssistantMonitorSpec]):
    """A declared monitor of an assistant."""

    __slots__ = ()

    def __init__(self, spec: AssistantMonitorSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.MONITOR, spec, origin, name)
