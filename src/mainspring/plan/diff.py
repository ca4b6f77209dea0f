"""What would change: the difference of two plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from mainspring.plan.graph import Node, Plan

__all__ = ["Change", "NodeRecord", "difference", "recorded"]


class NodeRecord(msgspec.Struct, frozen=True):
    """A node as it is kept between runs."""

    url: str
    spec: dict[str, object]
    inputs: list[str]
    fingerprint: str


class Change(msgspec.Struct, frozen=True):
    """What happens to one node.

    Attributes:
        what: ``add``, ``change``, ``remove``, or ``rebuild`` when only something above it changed.
        url: the node.
        fields: the parts of the spec that differ, each with its old and new value as text; None where absent.
        because: for a rebuild, the changed nodes above it.
    """

    what: Literal["add", "change", "remove", "rebuild"]
    url: str
    fields: tuple[tuple[str, str | None, str | None], ...] = ()
    because: tuple[str, ...] = ()


def recorded(plan: Plan) -> tuple[NodeRecord, ...]:
    """A plan as plain data, to be kept and compared with later ones."""
    return tuple(
        NodeRecord(node.url, msgspec.to_builtins(_plain(node.spec)), list(node.inputs), node.fingerprint)
        for node in plan.nodes
    )


def difference(old: Sequence[NodeRecord], new: Plan) -> tuple[Change, ...]:
    """What changes from a recorded plan to a new one, in the new plan's order; removals come last."""
    before = {record.url: record for record in old}
    changes: list[Change] = []
    touched: set[str] = set()
    for node, record in zip(new.nodes, recorded(new), strict=True):
        was = before.pop(node.url, None)
        change = _change(node, record, was, touched)
        if change is not None:
            changes.append(change)
            touched.add(node.url)
    return tuple(changes) + tuple(Change("remove", url) for url in before)


def _change(node: Node, record: NodeRecord, was: NodeRecord | None, touched: set[str]) -> Change | None:
    if was is None:
        return Change("add", node.url)
    fields = _fields(was, record)
    if fields:
        return Change("change", node.url, fields)
    if was.fingerprint != record.fingerprint:
        return Change("rebuild", node.url, because=tuple(url for url in node.inputs if url in touched))
    return None


def _fields(was: NodeRecord, now: NodeRecord) -> tuple[tuple[str, str | None, str | None], ...]:
    old = dict(_flat({**was.spec, "inputs of": was.inputs}))
    new = dict(_flat({**now.spec, "inputs of": now.inputs}))
    names = list(new) + [name for name in old if name not in new]
    return tuple((name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name))


def _flat(spec: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in spec.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        elif value is not None:
            shown = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
            pairs.append((f"{prefix}{key}", shown))
    return pairs


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
