"""What every declared thing has: a name, the line it was written on, and a frozen specification."""

from __future__ import annotations

import enum
from typing import Generic, TypeVar

from mainspring.declare.origin import Origin
from mainspring.errors import DeclarationError

__all__ = ["Declaration", "DeclaredKind", "give_name", "kind_of", "name_of", "origin_of", "spec_of"]

S = TypeVar("S", covariant=True)


class DeclaredKind(enum.StrEnum):
    """The kinds of thing an app declares; the first half of every object's URL, ``/kind/name``."""

    ENTITY = "entity"
    SOURCE = "source"
    FEATURE_VIEW = "feature_view"
    VECTOR_INDEX = "vector_index"
    ON_DEMAND = "on_demand"
    FEATURE_SERVICE = "feature_service"
    MODEL = "model"
    COMPOSITION = "composition"
    PROMOTION = "promotion"
    ENDPOINT = "endpoint"
    MONITOR = "monitor"
    STEP = "step"
    PIPELINE = "pipeline"
    SCHEDULE = "schedule"
    LLM = "llm"
    ROUTE = "route"
    PROMPT = "prompt"
    DOCUMENTS = "documents"
    INDEX = "index"
    TOOL = "tool"
    MCP = "mcp"
    ASSISTANT = "assistant"
    EVALUATION = "evaluation"


class Declaration(Generic[S]):
    """A handle on a declared thing; edges between declarations are references to these.

    It has no public attributes of its own, because on sources and feature views every public attribute is a
    column or a feature. Read it with `name_of`, `spec_of`, `origin_of` and `kind_of`.
    """

    __slots__ = ("__weakref__", "_kind", "_name", "_origin", "_spec")

    def __init__(self, kind: DeclaredKind, spec: S, origin: Origin, name: str | None) -> None:
        self._kind = kind
        self._spec = spec
        self._origin = origin
        self._name = name

    def __repr__(self) -> str:
        return f"<{self._kind.value} {self._name or 'without a name'} at {self._origin}>"


def spec_of(declaration: Declaration[S]) -> S:
    """What was declared, as a frozen value."""
    return declaration._spec


def origin_of(declaration: Declaration[object]) -> Origin:
    """The line it was declared on."""
    return declaration._origin


def kind_of(declaration: Declaration[object]) -> DeclaredKind:
    """What kind of thing it is."""
    return declaration._kind


def name_of(declaration: Declaration[object]) -> str:
    """Its name: ``called=``, or the name of the variable or function that holds it.

    Raises:
        DeclarationError: MS-1010, it is held by no variable of the app's module and has no ``called=``.
    """
    if declaration._name is None:
        words = declaration._kind.value.replace("_", " ")
        raise DeclarationError(
            f"{'an' if words[0] in 'aeiou' else 'a'} {words} has no name",
            code="MS-1010",
            why="a declaration is named by the module variable that holds it",
            origin=str(declaration._origin),
            fix='assign it to a variable of the module, or pass called="..."',
        )
    return declaration._name


def give_name(declaration: Declaration[object], name: str) -> None:
    """Name a declaration that has no name yet; a name once given stays."""
    if declaration._name is None:
        declaration._name = name
