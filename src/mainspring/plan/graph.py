"""The graph of what an app declares: nodes, edges, order. Pure values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from mainspring.declare.declaration import Declaration
from mainspring.declare.origin import Origin
from mainspring.declare.record import FieldSpec
from mainspring.errors import DeclarationError

__all__ = ["Node", "Plan", "in_order"]


@dataclass(frozen=True, slots=True)
class Node:
    """One declared thing, as the plan sees it.

    Attributes:
        kind: ``source``, ``model``, ``assistant``, ...: a value of `DeclaredKind`.
        name: unique within its kind.
        spec: what was declared, as plain data; two equal specs are the same thing.
        inputs: the URLs of what it is made from.
        fields: the columns of a source, or the keys and features of a view; empty for other kinds.
        origin: the line it was declared on; not compared.
        declaration: the declared handle; not compared.
        fingerprint: digest of the spec and of every input's fingerprint.
    """

    kind: str
    name: str
    spec: Mapping[str, object]
    inputs: tuple[str, ...]
    fields: tuple[FieldSpec, ...] = ()
    origin: Origin = field(default=Origin("", 0), compare=False)
    declaration: Declaration[object] | None = field(default=None, compare=False)
    fingerprint: str = ""

    @property
    def url(self) -> str:
        """Where it is shown, in the CLI, the API and the console alike."""
        return f"/{self.kind}/{self.name}"


class Plan(msgspec.Struct, frozen=True):
    """The whole graph, inputs before what is made from them."""

    app: str
    nodes: tuple[Node, ...]

    def node(self, url: str) -> Node | None:
        """The node of that URL (``/model/late``), or None."""
        return next((node for node in self.nodes if node.url == url), None)

    def of_kind(self, kind: str, *, over: str = "") -> tuple[Node, ...]:
        """The nodes of one kind, in order; with `over`, those that are made from a thing of that kind first of all.

        ``plan.of_kind("endpoint", over="model")`` leaves out the endpoints of assistants.
        """
        found = (node for node in self.nodes if node.kind == kind)
        return tuple(node for node in found if not over or node.inputs[0].startswith(f"/{over}/"))

    def upstream(self, urls: Iterable[str]) -> tuple[Node, ...]:
        """These nodes and all they are made from, inputs first."""
        wanted = set(urls)
        for node in reversed(self.nodes):
            if node.url in wanted:
                wanted.update(node.inputs)
        return tuple(node for node in self.nodes if node.url in wanted)

    def downstream(self, urls: Iterable[str]) -> tuple[Node, ...]:
        """These nodes and all that is made from them, inputs first."""
        reached = set(urls)
        for node in self.nodes:
            if reached.intersection(node.inputs):
                reached.add(node.url)
        return tuple(node for node in self.nodes if node.url in reached)


def in_order(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes, inputs before what is made from them, otherwise as declared.

    Raises:
        DeclarationError: MS-1102, they form a cycle.
    """
    waiting = {node.url: node for node in nodes}
    done: dict[str, Node] = {}
    while waiting:
        ready = [node for node in waiting.values() if all(url in done or url not in waiting for url in node.inputs)]
        if not ready:
            raise _cycle(waiting)
        for node in ready:
            done[node.url] = waiting.pop(node.url)
    return tuple(done.values())


def _cycle(waiting: Mapping[str, Node]) -> DeclarationError:
    path = [next(iter(waiting))]
    while path[-1] not in path[:-1]:
        path.append(next(url for url in waiting[path[-1]].inputs if url in waiting))
    loop = path[path.index(path[-1]) :]
    return DeclarationError(
        "the app's declarations form a cycle",
        code="MS-1102",
        why=" <- ".join(loop),
        origin=str(waiting[loop[0]].origin),
        fix="take one of these inputs away",
    )
