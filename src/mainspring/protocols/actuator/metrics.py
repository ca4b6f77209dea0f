"""``/actuator/metrics``: every number by name, with its labels to drill down by."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterable, Mapping

from mainspring.protocols.actuator.page import Operation, Page, RunBlocking, reading
from mainspring.protocols.http import Fault, Request
from mainspring.serving.telemetry import Labels, Series, described

__all__ = ["Number", "metrics_page"]

Number = tuple[str, str, Callable[[], float]]
"""A number of the process: its description, its unit, and what reads it."""

_BUCKET = "_bucket"
_UNITS = ("seconds", "bytes", "rows")


def metrics_page(numbers: Callable[[], Mapping[Series, float]], own: Mapping[str, Number], run: RunBlocking) -> Page:
    """The page.

    Args:
        numbers: every number that is counted, of all workers.
        own: numbers of the process, by the names that Spring Boot Admin knows.
        run: runs what is read in a thread.
    """

    def names(request: Request) -> object:
        found = {_dotted(described(name)[0]) for name, _ in numbers()}
        return {"names": sorted({*own, *found})}

    def one(request: Request) -> object:
        (name,) = request.parameters
        tags = _tags(request.query)
        if name in own:
            if tags:
                raise Fault(404, f"{name} has no tags")
            text, unit, read = own[name]
            return _shown(name, text, unit, [("VALUE", read())], {})
        parts = {series: value for series, value in numbers().items() if _dotted(described(series[0])[0]) == name}
        kept = {series: value for series, value in parts.items() if tags <= set(series[1])}
        if not kept:
            raise Fault(404, f"there is no metric {name!r} with these tags")
        family, kind, text = described(next(iter(parts))[0])
        unit = next((unit for unit in _UNITS if unit in family.split("_")), "")
        return _shown(name, text, unit, _measured(kind, kept), _available(kept, tags))

    return Page(
        "metrics",
        (
            Operation("GET", reading(names, run)),
            Operation("GET", reading(one, run), "*", "{requiredMetricName}", "requiredMetricName"),
        ),
    )


def _shown(
    name: str, text: str, unit: str, measured: Iterable[tuple[str, float]], tags: Mapping[str, list[str]]
) -> Mapping[str, object]:
    return {
        "name": name,
        "description": text,
        **({"baseUnit": unit} if unit else {}),
        "measurements": [{"statistic": statistic, "value": value} for statistic, value in measured],
        "availableTags": [{"tag": tag, "values": values} for tag, values in tags.items()],
    }


def _measured(kind: str, kept: Mapping[Series, float]) -> list[tuple[str, float]]:
    """The statistics of some series together; the greatest of a histogram is the bound of its last bucket in use."""
    if kind == "counter":
        return [("COUNT", sum(kept.values()))]
    if kind != "histogram":
        return [("VALUE", sum(kept.values()))]
    count = sum(value for (name, _), value in kept.items() if name.endswith("_count"))
    total = sum(value for (name, _), value in kept.items() if name.endswith("_sum"))
    bounds = [_bound(labels) for (name, labels), value in kept.items() if name.endswith(_BUCKET) and value]
    return [("COUNT", count), ("TOTAL_TIME", total), ("MAX", max(bounds, default=0.0))]


def _bound(labels: Labels) -> float:
    found = float(dict(labels)["le"])
    return found if found != float("inf") else 0.0


def _available(kept: Mapping[Series, float], asked: set[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for _, labels in kept:
        for key, value in labels:
            if key != "le" and (key, value) not in asked:
                found.setdefault(key, set()).add(value)
    return {key: sorted(values) for key, values in sorted(found.items())}


def _tags(query: bytes) -> set[tuple[str, str]]:
    """``tag=key:value``, as often as one likes.

    Raises:
        Fault: 400, one of them has no colon.
    """
    found = set()
    for name, value in urllib.parse.parse_qsl(query.decode("ascii", "replace"), keep_blank_values=True):
        if name != "tag":
            continue
        key, colon, text = value.partition(":")
        if not colon:
            raise Fault(400, f"{value[:80]!r} is no tag: write tag=key:value")
        found.add((key, text))
    return found


def _dotted(family: str) -> str:
    return family.removesuffix("_total").replace("_", ".")
