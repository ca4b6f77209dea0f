"""Which of a model's forms scores how many rows: measured where it is loaded, recorded, and told.

A form is a way in which the model is stored: ONNX, a booster's own file, a scikit-learn estimator. All of them have
passed the parity gate; which one costs least depends on the model, the number of rows, the libraries and the machine.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.errors import MainspringError
from mainspring.lazy import lazy
from mainspring.ports.catalog import Catalog, Event
from mainspring.ports.runtime import Card, Predictor, forms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = [
    "MEASURED",
    "SIZES",
    "BySize",
    "Measured",
    "cost_us",
    "fingerprint",
    "latest",
    "load_measured",
    "measure",
    "recall",
    "record",
    "rows_within",
    "switches",
    "told",
]

MEASURED = "model.measured"
"""The event that says what was measured of a model."""
SIZES = (1, 8, 32, 256, 1024)
"""The numbers of rows that are measured."""

_LIBRARIES = ("numpy", "scikit-learn", "lightgbm", "xgboost", "onnxruntime", "skops")
_MOST_NS = 8_000_000
_MOST_TIMES, _LEAST_TIMES = 25, 3
_WORTH = 1.2
"""A form takes over from the first one where it is so many times cheaper: equal rows keep equal scores otherwise."""
_KEPT = 50

Load = Callable[[Path, Card], Predictor]


class Measured(msgspec.Struct, frozen=True):
    """What a model's forms cost on a machine.

    Attributes:
        artifact: the digest of the model's folder.
        machine: the processor, and the versions of the libraries.
        costs: microseconds of processor time of one thread for a call, by form, then by its rows.
        chosen: by rows the form that scores so many.
        left_out: forms that cannot be loaded here, with the reason.
    """

    artifact: str
    machine: dict[str, str]
    costs: dict[str, dict[int, float]]
    chosen: dict[int, str]
    left_out: dict[str, str] = {}

    def curve(self) -> dict[int, float]:
        """The cost of a call by its rows, by the forms that are chosen for them."""
        return {rows: self.costs[name][rows] for rows, name in self.chosen.items()}


class BySize:
    """A model in several forms: each call goes to the one that is cheapest for so many rows.

    Args:
        starts: from how many rows on each form scores, ascending; the first one is 1.
        predictors: the forms.
    """

    def __init__(self, starts: Sequence[int], predictors: Sequence[Predictor]) -> None:
        self._starts = list(starts[1:])
        self._predictors = list(predictors)

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """One score a row."""
        return self._predictors[bisect_right(self._starts, len(matrix))].scores(matrix)


def fingerprint() -> dict[str, str]:
    """What the measured costs depend on, besides the model: the processor, and the versions of the libraries."""
    found = {"cpu": _processor(), "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def measure(predictor: Predictor, card: Card, clock: Callable[[], int] = time.thread_time_ns) -> dict[int, float]:
    """Microseconds of a call by its rows: the least of several, for what is more is somebody else's.

    Rows are drawn at random; a model that refuses some values is asked zeros.

    Args:
        predictor: the loaded form.
        card: its columns and dtype.
        clock: nanoseconds of this thread.

    Raises:
        Exception: as the model raises for zeros.
    """
    drawn = _rows(SIZES[-1], len(card.columns), card.dtype)
    try:
        return _measured(predictor, drawn, clock)
    except Exception:  # whatever code of the user's raises for values that it does not take
        return _measured(predictor, np.zeros_like(drawn), clock)


def _measured(predictor: Predictor, rows: NDArray[Any], clock: Callable[[], int]) -> dict[int, float]:
    found: dict[int, float] = {}
    for size in SIZES:
        matrix = np.ascontiguousarray(rows[:size])
        predictor.scores(matrix)
        least, spent, times = 0, 0, 0
        while times < _LEAST_TIMES or (times < _MOST_TIMES and spent < _MOST_NS):
            begun = clock()
            predictor.scores(matrix)
            took = clock() - begun
            least = took if not times else min(least, took)
            spent, times = spent + took, times + 1
        found[size] = round(least / 1e3, 1)
    return found


def _rows(rows: int, columns: int, dtype: str) -> NDArray[Any]:
    """Rows of every magnitude and sign: those of a model's own are nobody's to carry around."""
    drawn = np.random.default_rng(0)
    values = np.exp(drawn.normal(0.0, 3.0, (rows, columns))) * drawn.choice((-1.0, 1.0, 1.0), (rows, columns))
    found: NDArray[Any] = values.astype(dtype)
    return found


def _chosen(costs: Mapping[str, Mapping[int, float]]) -> dict[int, str]:
    """The form for each measured number of rows; the first one unless another is worth it."""
    first = next(iter(costs))
    found = {}
    for size in SIZES:
        best = min(costs, key=lambda name: costs[name][size])
        found[size] = best if costs[best][size] * _WORTH < costs[first][size] else first
    return found


def cost_us(curve: Mapping[int, float], rows: int) -> float:
    """The cost of a call with so many rows, between and beyond the measured ones on straight lines."""
    sizes = sorted(curve)
    after = min(max(bisect_right(sizes, rows), 1), len(sizes) - 1)
    low, high = sizes[after - 1], sizes[after]
    slope = (curve[high] - curve[low]) / (high - low)
    return curve[low] + slope * (rows - low)


def rows_within(curve: Mapping[int, float], most_us: float, most_rows: int = SIZES[-1]) -> int:
    """The most rows whose call costs no more than that, 0 for none."""
    low, high = 0, most_rows
    while low < high:
        middle = (low + high + 1) // 2
        if cost_us(curve, middle) <= most_us:
            low = middle
        else:
            high = middle - 1
    return low


def switches(measured: Measured) -> list[tuple[int, str]]:
    """From how many rows on which form scores: between two measured sizes where the lines of their costs cross."""
    found = [(1, measured.chosen[SIZES[0]])]
    for low, high in itertools.pairwise(SIZES):
        before, after = measured.chosen[low], measured.chosen[high]
        if before == after:
            continue
        start = next(
            rows
            for rows in range(low + 1, high + 1)
            if rows == high or cost_us(measured.costs[after], rows) < cost_us(measured.costs[before], rows)
        )
        found.append((start, after))
    return found


def load_measured(
    folder: Path, card: Card, load: Load, artifact: str, known: Measured | None
) -> tuple[Predictor, Measured]:
    """A model with the form that is cheapest for each number of rows.

    What was measured before is taken as it is, and only the forms that were chosen are loaded.

    Args:
        folder: the model's folder.
        card: its card.
        load: loads one of its forms.
        artifact: the folder's digest.
        known: what was measured on such a machine before, or None.

    Raises:
        MainspringError: as loading raises, when no form can be loaded.
    """
    each: dict[str, Card] = {form.format: form for form in forms(card)}
    if known is not None and set(known.chosen.values()) <= set(each):
        try:
            return _by_size(known, {name: load(folder, each[name]) for name in set(known.chosen.values())}), known
        except MainspringError:  # a library of those is gone: measure what is left
            pass
    loaded, left_out, failed = _loaded(folder, each, load)
    if not loaded:
        assert failed is not None
        raise failed
    costs = {name: measure(predictor, each[name]) for name, predictor in loaded.items()}
    measured = Measured(artifact, fingerprint(), costs, _chosen(costs), left_out)
    return _by_size(measured, loaded), measured


def _loaded(
    folder: Path, each: Mapping[str, Card], load: Load
) -> tuple[dict[str, Predictor], dict[str, str], MainspringError | None]:
    loaded: dict[str, Predictor] = {}
    left_out: dict[str, str] = {}
    failed: MainspringError | None = None
    for name, form in each.items():
        try:
            loaded[name] = load(folder, form)
        except MainspringError as error:
            failed = failed or error
            left_out[name] = error.what
    return loaded, left_out, failed


def _by_size(measured: Measured, loaded: Mapping[str, Predictor]) -> Predictor:
    found = switches(measured)
    if len(found) == 1:
        return loaded[found[0][1]]
    return BySize([start for start, _ in found], [loaded[name] for _, name in found])


def recall(catalog: Catalog, model: str, artifact: str) -> Measured | None:
    """What was measured of a model's folder on a machine like this one, or None."""
    machine = fingerprint()
    for event in catalog.last_events(what=MEASURED, subject=f"/model/{model}", limit=_KEPT):
        if event.subject != f"/model/{model}" or event.data.get("artifact") != artifact:
            continue
        try:
            found = msgspec.convert(event.data, Measured, strict=False)
        except msgspec.ValidationError:
            continue
        if found.machine == machine:
            return found
    return None


def latest(catalog: Catalog, model: str) -> Measured | None:
    """What was measured of a model last, on whatever machine; None before it was loaded to be served."""
    for event in catalog.last_events(what=MEASURED, subject=f"/model/{model}", limit=_KEPT):
        if event.subject == f"/model/{model}":
            return msgspec.convert(event.data, Measured, strict=False)
    return None


def told(measured: Measured) -> list[str]:
    """What was measured, for people: who scores how many rows, and what each form costs."""
    found = switches(measured)
    ends = [start - 1 for start, _ in found[1:]]
    spans = [f"{name} scores {start} to {end} rows" for (start, name), end in zip(found, ends, strict=False)]
    start, name = found[-1]
    spans.append(f"{name} scores {start} rows and more" if start > 1 else f"{name} scores every number of rows")
    lines = [f"served: {', '.join(spans)} (measured on {measured.machine.get('cpu', 'this machine')})"]
    width = max(map(len, measured.costs))
    for form, costs in measured.costs.items():
        each = ", ".join(f"{rows:,}: {cost:,.0f}" for rows, cost in sorted(costs.items()))
        lines.append(f"  {form:<{width}}  microseconds by rows: {each}")
    return lines + [f"  {form:<{width}}  left out: {why}" for form, why in measured.left_out.items()]


def record(catalog: Catalog, model: str, measured: Measured, at: int) -> None:
    """Write down what was measured.

    Args:
        catalog: the metadata store.
        model: the model's name.
        measured: what was found.
        at: the moment, UTC microseconds.
    """
    data = msgspec.to_builtins(measured, str_keys=True)
    catalog.add_event(Event(at, "runtime", MEASURED, f"/model/{model}", data))
