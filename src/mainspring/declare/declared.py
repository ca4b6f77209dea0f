"""What every part of an app shares: its name, and what was declared on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from mainspring.declare.assistant import AssistantEndpoint
from mainspring.declare.declaration import Declaration, DeclaredKind, give_name, kind_of, spec_of
from mainspring.declare.model import Schedule
from mainspring.declare.origin import here

__all__ = ["Declared"]

D = TypeVar("D", bound=Declaration[object])


class Declared:
    """An app's name and its declarations, in the order they were made."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.origin = here()
        self._declared: list[Declaration[object]] = []

    def __repr__(self) -> str:
        return f"App({self.name!r}, {len(self._declared)} declared)"

    def declared(self) -> tuple[Declaration[object], ...]:
        """All declarations, in the order they were made."""
        return tuple(self._declared)

    def bind(self, namespace: Mapping[str, object]) -> None:
        """Name what has no name after the variable that holds it; the loader calls this with the app's module.

        A schedule or an endpoint that no variable holds bears its target's name, which that may have only now.
        """
        mine = {id(declaration): declaration for declaration in self._declared}
        for variable, value in namespace.items():
            if id(value) in mine and not variable.startswith("_"):
                give_name(mine[id(value)], variable)
        for declaration in self._declared:
            target = _named_after(declaration)
            if target is not None and target._name is not None:
                give_name(declaration, target._name)

    def of_kind(self, kind: DeclaredKind) -> tuple[Declaration[object], ...]:
        """The declarations of one kind, in order."""
        return tuple(declaration for declaration in self._declared if kind_of(declaration) is kind)

    def _add(self, declaration: D) -> D:
        self._declared.append(declaration)
        return declaration


def _named_after(declaration: Declaration[object]) -> Declaration[object] | None:
    """What lends its name to a declaration that has none."""
    if isinstance(declaration, Schedule):
        return spec_of(declaration).target
    return spec_of(declaration).target if isinstance(declaration, AssistantEndpoint) else None
