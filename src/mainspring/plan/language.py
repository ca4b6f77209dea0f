"""What answers in words, as the plan sees it: language models, documents, indexes, tools, assistants."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping

from msgspec.structs import asdict

from mainspring.declare.assistant import (
    AssistantEndpointSpec,
    AssistantMonitorSpec,
    AssistantSpec,
    EvaluationSpec,
    McpServerSpec,
    ToolSpec,
)
from mainspring.declare.data import did_you_mean
from mainspring.declare.declaration import Declaration, name_of, spec_of
from mainspring.declare.documents import DocumentsSpec, IndexSpec
from mainspring.declare.duration import spell
from mainspring.declare.llm import LLMSpec, Prompt, PromptSpec, RouteSpec
from mainspring.errors import DeclarationError
from mainspring.plan.closure import closure_of
from mainspring.plan.graph import Node

__all__ = ["check_language", "describe_language", "uses_of_language"]

_WATCHED = (
    "latency", "cost", "tokens", "retrieval",
    "errors", "timeouts", "refusals", "tools", "uncited", "dropped",
)  # fmt: skip


@functools.singledispatch
def uses_of_language(spec: object) -> Iterable[Declaration[object]]:
    """What a declaration is made from."""
    return ()


@uses_of_language.register
def _(spec: RouteSpec) -> Iterable[Declaration[object]]:
    return spec.models


@uses_of_language.register
def _(spec: PromptSpec) -> Iterable[Declaration[object]]:
    return () if spec.llm is None else (spec.llm,)


@uses_of_language.register
def _(spec: IndexSpec) -> Iterable[Declaration[object]]:
    return spec.documents


@uses_of_language.register
def _(spec: AssistantSpec) -> Iterable[Declaration[object]]:
    told = (spec.instructions,) if isinstance(spec.instructions, Prompt) else ()
    return (spec.llm, *told, *spec.knows, *spec.may)


@uses_of_language.register
def _(spec: EvaluationSpec) -> Iterable[Declaration[object]]:
    return (spec.target,) if spec.judge is None else (spec.target, spec.judge)


@uses_of_language.register(AssistantEndpointSpec)
@uses_of_language.register(AssistantMonitorSpec)
def _(spec: AssistantEndpointSpec | AssistantMonitorSpec) -> Iterable[Declaration[object]]:
    return (spec.target,)


@functools.singledispatch
def describe_language(spec: object) -> Mapping[str, object]:
    """What was declared, as plain data; two equal ones are the same thing."""
    raise TypeError(f"no description of {type(spec).__name__}")


@describe_language.register
def _(spec: LLMSpec) -> Mapping[str, object]:
    return {
        "max_tokens": spec.max_tokens,
        "temperature": spec.temperature,
        "needs": list(spec.needs),
        "guards": [asdict(guard) for guard in spec.guards],
    }


@describe_language.register
def _(spec: RouteSpec) -> Mapping[str, object]:
    return {
        "first": name_of(spec.first),
        "beside": [name_of(model) for model in spec.beside],
        "hedge": None if spec.hedge_us is None else spell(spec.hedge_us),
        "fallback": [name_of(model) for model in spec.fallback],
        "split": {name_of(model): share for model, share in spec.split},
        "cache": None if spec.cache_us is None else spell(spec.cache_us),
        **({} if spec.alike is None else {"alike": spec.alike}),
    }


@describe_language.register
def _(spec: PromptSpec) -> Mapping[str, object]:
    return {
        "template": spec.template,
        "variables": {one.name: [one.type.__name__, one.default] for one in spec.variables},
        "temperature": spec.temperature,
        "max_tokens": spec.max_tokens,
        "answer": None if spec.answer is None else spec.answer.__name__,
    }


@describe_language.register
def _(spec: DocumentsSpec) -> Mapping[str, object]:
    return {
        "place": spec.place,
        "every": None if spec.every_us is None else spell(spec.every_us),
        "include": list(spec.include),
        "exclude": list(spec.exclude),
        "access": _code(spec.access) if callable(spec.access) else spec.access,
        "max_bytes": spec.max_bytes,
    }


@describe_language.register
def _(spec: IndexSpec) -> Mapping[str, object]:
    return {
        "tokens": spec.tokens,
        "mode": spec.mode,
        "rerank": spec.rerank,
        "language": spec.language,
        "filters": list(spec.filters),
    }


@describe_language.register
def _(spec: ToolSpec) -> Mapping[str, object]:
    return {
        "description": spec.signature.description,
        "parameters": spec.signature.schema,
        "timeout": spell(spec.timeout_us),
        "approve": spec.approve,
        "allow": list(spec.allow),
        "retries": spec.retries,
        "code": _code(spec.function),
    }


@describe_language.register
def _(spec: McpServerSpec) -> Mapping[str, object]:
    return {"approve": "all" if spec.approve is None else list(spec.approve), "allow": list(spec.allow)}


@describe_language.register
def _(spec: AssistantSpec) -> Mapping[str, object]:
    told = spec.instructions
    return {
        "instructions": f"prompt {name_of(told)}" if isinstance(told, Prompt) else told,
        "k": spec.k,
        "always": spec.always,
        "max_calls": spec.max_calls,
        "timeout": spell(spec.timeout_us),
        "keep": None if spec.keep_us is None else spell(spec.keep_us),
    }


@describe_language.register
def _(spec: EvaluationSpec) -> Mapping[str, object]:
    return {
        "cases": spec.cases,
        "least": dict(spec.least),
        "code": None if spec.function is None else _code(spec.function),
    }


@describe_language.register
def _(spec: AssistantEndpointSpec) -> Mapping[str, object]:
    return {"latency": None if spec.latency_us is None else spell(spec.latency_us), "log": spec.log}


@describe_language.register
def _(spec: AssistantMonitorSpec) -> Mapping[str, object]:
    return {"false_alarms": spec.false_alarms, "watch": list(spec.watch)}


def check_language(node: Node, evaluations: Mapping[str, Iterable[str]]) -> None:
    """What can only be checked on the whole: tools' names (MS-1049), what is watched (MS-1109).

    Args:
        node: a node of any kind.
        evaluations: the names of each target's evaluations, by the target's URL.
    """
    spec = spec_of(node.declaration) if node.declaration is not None else None
    if isinstance(spec, AssistantSpec):
        _tools_have_names(node, spec)
    elif isinstance(spec, AssistantMonitorSpec):
        known = [*evaluations.get(node.inputs[0], ()), *_WATCHED]
        for name in spec.watch:
            if name not in known:
                raise DeclarationError(
                    f"monitor {node.name!r} watches {name!r}, which is no evaluation of the assistant",
                    code="MS-1109",
                    origin=str(node.origin),
                    fix=did_you_mean(name, known),
                )


def _tools_have_names(node: Node, spec: AssistantSpec) -> None:
    seen: set[str] = set()
    for used in spec.may:
        name = name_of(used)
        if name in seen:
            raise DeclarationError(
                f"assistant {node.name!r} may use two things called {name!r}",
                code="MS-1049",
                why="the model tells tools apart by their names",
                origin=str(node.origin),
                fix='rename one, or pass called="..."',
            )
        seen.add(name)


def _code(function: Callable[..., object]) -> Mapping[str, str]:
    return dict(closure_of(function).labels)
