"""What can only be checked of a composition on the whole: its parts belong together, and its name is its own."""

from __future__ import annotations

from collections.abc import Container, Sequence

from mainspring.declare.composition import CompositionSpec
from mainspring.declare.declaration import name_of, spec_of
from mainspring.errors import DeclarationError
from mainspring.plan.graph import Node

__all__ = ["check_composition"]


def check_composition(
    node: Node, spec: CompositionSpec, nodes: Container[str], columns: Sequence[tuple[str, str]]
) -> None:
    """The parts are asked about the same rows, and nothing else that is served bears the name (MS-2726 to MS-2728).

    Args:
        node: the composition's node.
        spec: what was declared.
        nodes: the URLs of what the app declares.
        columns: each column of each part, with what it is of.
    """
    first = spec_of(spec.models[0])
    for part in spec.models[1:]:
        if spec_of(part).spine is not first.spine:
            raise DeclarationError(
                f"the models of {node.name!r} are asked about rows of different sources",
                code="MS-2726",
                why=f"{name_of(spec.models[0])} about {name_of(first.spine)}, {name_of(part)} about "
                f"{name_of(spec_of(part).spine)}",
                origin=str(node.origin),
                fix="put models together whose labels are columns of one source",
            )
    first_of: dict[str, str] = {}
    for name, origin in columns:
        if first_of.setdefault(name, origin) != origin:
            raise DeclarationError(
                f"the models of {node.name!r} mean different things by {name!r}",
                code="MS-2728",
                why=f"it is of {first_of[name]} for one of them and of {origin} for another",
                origin=str(node.origin),
                fix="rename one of the features",
            )
    if f"/model/{node.name}" in nodes:
        raise DeclarationError(
            f"a model and a composition are called {node.name!r}",
            code="MS-2727",
            why="protocols find both by the name alone",
            origin=str(node.origin),
            fix='rename one, or pass called="..."',
        )
