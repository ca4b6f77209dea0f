"""The lineage graph as SVG: layers from left to right, edges that never run behind an unrelated node. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

__all__ = ["Box", "Drawing", "Line", "layout"]

BOX_WIDTH, BOX_HEIGHT = 168, 44
GAP_X, GAP_Y, MARGIN = 56, 20, 8


class Box(msgspec.Struct, frozen=True):
    """A node where it is drawn; x and y are its upper left corner, in pixels."""

    url: str
    kind: str
    name: str
    state: str
    x: int
    y: int


class Line(msgspec.Struct, frozen=True):
    """An edge as the ``d`` of an SVG path."""

    src: str
    dst: str
    path: str


class Drawing(msgspec.Struct, frozen=True):
    """A laid-out graph and its size in pixels."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


def layout(nodes: Sequence[tuple[str, str, str]], edges: Sequence[tuple[str, str]]) -> Drawing:
    """Place nodes in layers by their longest path from a source; long edges get places of their own in each layer.

    Args:
        nodes: URL, kind and state of each node.
        edges: pairs (from, to) of URLs; the graph has no cycle.
    """
    urls = [url for url, _, _ in nodes]
    layer = _layers(urls, edges)
    rows, chains = _places(urls, edges, layer)
    y_of = {place: y for column in rows for y, place in _heights(column)}
    boxes = tuple(
        Box(url, kind, url.rsplit("/", 1)[-1], state, _x(layer[url]), y_of[url] - BOX_HEIGHT // 2)
        for url, kind, state in nodes
    )
    lines = tuple(Line(src, dst, _path(src, dst, chain, layer, y_of)) for (src, dst), chain in chains.items())
    depth = max(layer.values(), default=-1) + 1
    height = max((y for y in y_of.values()), default=0) + BOX_HEIGHT // 2 + MARGIN
    return Drawing(max(depth, 1) * (BOX_WIDTH + GAP_X) - GAP_X + 2 * MARGIN, height, boxes, lines)


def _layers(urls: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    above: dict[str, list[str]] = {url: [] for url in urls}
    for src, dst in edges:
        above[dst].append(src)
    layer: dict[str, int] = {}

    def depth(url: str) -> int:
        if url not in layer:
            layer[url] = max((depth(src) + 1 for src in above[url]), default=0)
        return layer[url]

    for url in urls:
        depth(url)
    return layer


def _places(
    urls: Sequence[str], edges: Sequence[tuple[str, str]], layer: Mapping[str, int]
) -> tuple[list[list[str]], dict[tuple[str, str], list[str]]]:
    """Columns of nodes and of the points where long edges pass, ordered to cross little."""
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for url in urls:
        rows[layer[url]].append(url)
    chains: dict[tuple[str, str], list[str]] = {}
    neighbours: dict[str, list[str]] = {}
    for src, dst in edges:
        chain = [f"{src}>{dst}#{at}" for at in range(layer[src] + 1, layer[dst])]
        chains[src, dst] = chain
        for at, place in enumerate(chain, start=layer[src] + 1):
            rows[at].append(place)
        for before, after in zip([src, *chain], [*chain, dst], strict=True):
            neighbours.setdefault(after, []).append(before)
    for at in range(1, len(rows)):
        above = {place: index for index, place in enumerate(rows[at - 1])}
        order = {
            place: sum(above[near] for near in neighbours.get(place, ())) / max(len(neighbours.get(place, ())), 1)
            for place in rows[at]
        }
        rows[at].sort(key=lambda place: order[place])
    return rows, chains


def _heights(column: Sequence[str]) -> list[tuple[int, str]]:
    placed, y = [], MARGIN
    for place in column:
        height = 12 if "#" in place else BOX_HEIGHT
        placed.append((y + height // 2, place))
        y += height + GAP_Y
    return placed


def _x(layer: int) -> int:
    return MARGIN + layer * (BOX_WIDTH + GAP_X)


def _path(src: str, dst: str, chain: Sequence[str], layer: Mapping[str, int], y_of: Mapping[str, int]) -> str:
    x, y = _x(layer[src]) + BOX_WIDTH, y_of[src]
    parts = [f"M{x} {y}"]
    for at, place in enumerate([*chain, dst], start=layer[src] + 1):
        to_x, to_y = _x(at), y_of[place]
        half = (x + to_x) // 2
        parts.append(f"C{half} {y} {half} {to_y} {to_x} {to_y}")
        if place != dst:
            parts.append(f"H{to_x + BOX_WIDTH}")
        x, y = to_x + BOX_WIDTH, to_y
    return "".join(parts)
