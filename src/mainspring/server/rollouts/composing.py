"""Compositions in a process: the function, and the versions of its models that answer now, as one more served model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from mainspring.catalog.ids import new_id, now_us
from mainspring.choose.services import Services
from mainspring.declare.batching import USUAL
from mainspring.declare.composition import Composition, CompositionEndpointSpec, CompositionSpec, Rows
from mainspring.declare.declaration import DeclaredKind, name_of, spec_of
from mainspring.declare.model import Input
from mainspring.declare.origin import of_function
from mainspring.declare.record import Kind
from mainspring.errors import DataError, MainspringError, StoreError, UserCodeError
from mainspring.features.definitions import ReadColumn, Reads, reads_of
from mainspring.features.view import View
from mainspring.lazy import lazy
from mainspring.plan.closure import closure_of
from mainspring.plan.encoding import digest, encode
from mainspring.plan.graph import Node, Plan
from mainspring.ports.catalog import Entity
from mainspring.ports.runtime import Card
from mainspring.server.rollouts.loading import ModelLoading
from mainspring.serving.metering import ModelMeter
from mainspring.serving.models import LiveModel, queue_of, warmed
from mainspring.serving.statistics import Statistics
from mainspring.serving.table import ModelTable
from mainspring.serving.telemetry import Metrics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["Compositions", "composed_inputs", "composed_reads", "spec_of_endpoint", "version_column"]

_KIND = DeclaredKind.COMPOSITION.value
_MOST_READY = 8
"""The most compositions of one name that wait for their models to take over."""


def spec_of_endpoint(node: Node) -> CompositionEndpointSpec:
    """What the endpoint over a composition is."""
    return spec_of(cast("Any", node.declaration))  # type: ignore[no-any-return]


def composed_inputs(spec: CompositionSpec) -> tuple[Input, ...]:
    """What the models of a composition read, together."""
    return tuple(item for model in spec.models for item in spec_of(model).inputs)


def composed_reads(spec: CompositionSpec, views: Mapping[str, View]) -> Reads:
    """The same, looked up: each column once."""
    reads = reads_of(composed_inputs(spec), views)
    found: dict[str, ReadColumn] = {}
    for column in reads.columns:
        found.setdefault(column.name, column)
    return Reads(reads.selection, tuple(found.values()))


def version_column(model: str) -> str:
    """The column of the prediction log with the version of a composition's model that scored."""
    return f"{model}__version"


_Parts = tuple[LiveModel, ...]


class Compositions:
    """The compositions of a process.

    Args:
        services: the project's ports.
        plan: the app's graph.
        table: the models; compositions go there too.
        loading: knows the versions that read by other definitions than the app's.
        metrics: where queues are counted.
        views: called for the app's views.
        tell: told what a person should know.
    """

    def __init__(
        self,
        services: Services,
        plan: Plan,
        table: ModelTable,
        loading: ModelLoading,
        metrics: Metrics,
        views: Callable[[], Mapping[str, View]],
        tell: Callable[[str], None],
    ) -> None:
        self._services = services
        self._app = plan.app
        self._metrics = metrics
        self._nodes = plan.of_kind(_KIND)
        self._table = table
        self._loading = loading
        self._views = views
        self._tell = tell
        self._lock = threading.RLock()
        self._made_of: dict[str, tuple[str, ...]] = {}
        self._seen: dict[str, _Parts] = {}
        self._ready: dict[str, list[tuple[_Parts, LiveModel]]] = {}
        self._changed: list[str] = []
        self._versions: dict[str, int] = {}
        self._told: dict[str, str] = {}

    def refresh(self, wanted: Sequence[str]) -> list[str]:
        """Serve the wanted compositions; the names of those whose models' versions have moved since the last time.

        From here on each is put together of the versions that answer at the moment it is looked at: where several
        workers are at one on these, they are at one on it.
        """
        for node in self._nodes:
            if node.url not in wanted:
                continue
            if node.name not in self._made_of:
                spec = spec_of(cast(Composition, node.declaration))
                self._made_of[node.name] = tuple(name_of(model) for model in spec.models)
                self._table.derive(node.name, partial(self._follow, node))
            self._follow(node)
        with self._lock:
            changed, self._changed = list(dict.fromkeys(self._changed)), []
        return changed

    def prepare(self, model: str) -> None:
        """Put together what may come to answer when other versions of a model take over, before they do."""
        for node in self._nodes:
            if model not in (names := self._made_of.get(node.name, ())):
                continue
            for live in self._table.prepared(model):
                parts = self._parts(names, {model: live})
                if parts and (made := self._made(node, parts)) is not None:
                    with self._lock:
                        self._ready[node.name] = [*self._ready.get(node.name, ()), (parts, made)][-_MOST_READY:]

    def _parts(self, names: Sequence[str], instead: Mapping[str, LiveModel]) -> _Parts:
        """The versions of models that answer now; none while one of them has none."""
        found = tuple(live for name in names if (live := instead.get(name) or self._table.get(name)) is not None)
        return found if len(found) == len(names) else ()

    def _follow(self, node: Node) -> None:
        """Let a composition be of the versions that answer now."""
        parts = self._parts(self._made_of[node.name], {})
        if _alike(parts, self._seen.get(node.name)):
            return
        with self._lock:
            if _alike(parts, self._seen.get(node.name)):
                return
            self._seen[node.name] = parts
            ready = self._ready.pop(node.name, [])
            if not parts:
                self._table.remove(node.name)
                return
            made = next((made for known, made in ready if _alike(known, parts)), None) or self._made(node, parts)
            if made is not None:
                self._table.put(node.name, made)
                self._changed.append(node.name)

    def _made(self, node: Node, parts: _Parts) -> LiveModel | None:
        """A composition of these versions, warm; None where it stays as it is, which is told."""
        if (behind := next((live for live in parts if self._loading.own(live) is not None), None)) is not None:
            self._say(node.name, f"its model {behind.card.model} version {behind.version} reads other definitions")
            return None
        try:
            return self._put_together(node, spec_of(cast(Composition, node.declaration)), parts)
        except Exception as error:  # its function fails on zeros: the versions before go on
            self._say(node.name, error.what if isinstance(error, MainspringError) else type(error).__name__)
            return None

    def _say(self, name: str, why: str) -> None:
        if self._told.get(name) != why:
            self._told[name] = why
            self._tell(f"composition {name} stays as it is: {why}")

    def _put_together(self, node: Node, spec: CompositionSpec, parts: Sequence[LiveModel]) -> LiveModel:
        columns = tuple(column.name for column in composed_reads(spec, self._views()).columns)
        label = spec_of(spec.models[0]).label
        binary = label.field.type.kind is Kind.BOOLEAN if spec.gives is None else spec.gives == "probability"
        card = Card(node.name, "python", "", columns, "float64", "binary" if binary else "regression")
        predictor = _Composed(node.name, spec.function, columns, [_Part(live) for live in parts])
        versions = {live.card.model: live.version for live in parts}
        number, statistics = str(self._version(node, spec)), Statistics()
        meter = ModelMeter(statistics, self._metrics, app=self._app, model=node.name, version=number)
        queue = queue_of(node.name, predictor, USUAL, meter)
        return warmed(LiveModel(number, "", card, predictor, batches=queue, statistics=statistics, parts=versions))

    def _version(self, node: Node, spec: CompositionSpec) -> int:
        """Counts the function's contents, with all that it reaches; where nothing can be recorded it is 1."""
        if node.name not in self._versions:
            content = digest(encode([closure_of(spec.function).digest, [name_of(model) for model in spec.models]]))
            catalog = self._services.catalog
            try:
                kept = catalog.add_entity(Entity(new_id(), _KIND, node.name, 0, content, {}, now_us()))
                self._versions[node.name] = kept.version
            except StoreError:
                self._versions[node.name] = 1
        return self._versions[node.name]


def _alike(parts: _Parts, known: _Parts | None) -> bool:
    """Whether they are the very same versions."""
    if known is None or len(parts) != len(known):
        return False
    return all(one is other for one, other in zip(parts, known, strict=True))


class _Part:
    """A version of a model, as a composition's function calls it."""

    def __init__(self, live: LiveModel) -> None:
        self.version = live.version
        self._live = live

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """One score a row."""
        return self._live.scores(rows.numpy(self._live.card.columns))


class _Composed:
    """The function with its models, as a predictor."""

    def __init__(
        self, name: str, function: Callable[..., object], columns: Sequence[str], parts: Sequence[_Part]
    ) -> None:
        self._name = name
        self._function = function
        self._columns = columns
        self._parts = parts

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        rows = Rows(dict(zip(self._columns, np.ascontiguousarray(matrix.T), strict=True)))
        try:
            found = np.asarray(self._function(rows, *self._parts), np.float64)
        except DataError:  # what the caller has sent
            raise
        except Exception as error:
            raise self._failed(f"{type(error).__name__}: {error}") from error
        if found.shape != (len(matrix),):
            raise self._failed(f"it gave an array of shape {list(found.shape)} for {len(matrix)} rows")
        return found

    def _failed(self, why: str) -> UserCodeError:
        return UserCodeError(
            f"composition {self._name!r} failed",
            code="MS-2729",
            why=why,
            origin=str(of_function(self._function)),
            fix="it takes the rows and the models, and gives one number a row",
        )
