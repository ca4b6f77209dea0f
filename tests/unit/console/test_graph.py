"""The lineage drawing: layers, and edges that never pass behind an unrelated node."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from mainspring.console.graph import BOX_HEIGHT, BOX_WIDTH, Drawing, layout


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    count = draw(st.integers(1, 12))
    urls = [f"/kind/n{i}" for i in range(count)]
    pairs = [(urls[a], urls[b]) for b in range(count) for a in range(b)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=24)) if pairs else []
    return urls, edges


def points(path: str) -> list[tuple[float, float]]:
    """Points along a path of cubic curves and horizontal lines."""
    found: list[tuple[float, float]] = []
    x = y = 0.0
    for command, text in re.findall(r"([MCH])([^MCH]*)", path):
        numbers = [float(number) for number in text.split()]
        if command == "M":
            x, y = numbers
        elif command == "H":
            found += [(x + (numbers[0] - x) * t / 20, y) for t in range(21)]
            x = numbers[0]
        else:
            x1, y1, x2, y2, x3, y3 = numbers
            for t in (step / 20 for step in range(21)):
                u = 1 - t
                found.append(
                    (
                        u**3 * x + 3 * u * u * t * x1 + 3 * u * t * t * x2 + t**3 * x3,
                        u**3 * y + 3 * u * u * t * y1 + 3 * u * t * t * y2 + t**3 * y3,
                    )
                )
            x, y = x3, y3
    return found


@given(graphs())
def test_edges_never_run_behind_an_unrelated_node(graph: tuple[list[str], list[tuple[str, str]]]) -> None:
    urls, edges = graph
    drawing = layout([(url, "kind", "ok") for url in urls], edges)
    boxes = {box.url: box for box in drawing.boxes}
    for line in drawing.lines:
        for x, y in points(line.path):
            for url, box in boxes.items():
                inside = box.x < x < box.x + BOX_WIDTH and box.y < y < box.y + BOX_HEIGHT
                assert not inside or url in (line.src, line.dst), (line, url)


@given(graphs())
def test_boxes_lie_apart_inside_the_drawing_and_edges_go_right(graph: tuple[list[str], list[tuple[str, str]]]) -> None:
    urls, edges = graph
    drawing: Drawing = layout([(url, "kind", "ok") for url in urls], edges)
    boxes = {box.url: box for box in drawing.boxes}
    assert len({(box.x, box.y) for box in boxes.values()}) == len(urls)
    for src, dst in edges:
        assert boxes[src].x < boxes[dst].x
    for box in boxes.values():
        assert box.x >= 0
        assert box.x + BOX_WIDTH <= drawing.width
        assert box.y + BOX_HEIGHT <= drawing.height
    columns = sorted({box.x for box in boxes.values()})
    for x in columns:
        heights = sorted(box.y for box in boxes.values() if box.x == x)
        assert all(b - a >= BOX_HEIGHT for a, b in itertools.pairwise(heights))


def test_an_empty_graph_is_drawn() -> None:
    assert layout([], []).boxes == ()
