"""Model versions come to life: the cheapest of their forms, a queue of their own, warm before anybody asks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import msgspec
from msgspec.structs import replace

from mainspring.catalog.ids import now_us
from mainspring.choose.backends import Measured, load_measured, recall, record, rows_within
from mainspring.choose.services import Services
from mainspring.config.settings import Settings
from mainspring.declare.batching import USUAL, Batching
from mainspring.declare.data import did_you_mean
from mainspring.declare.declaration import name_of, origin_of, spec_of
from mainspring.declare.model import Endpoint, EndpointSpec
from mainspring.errors import ConfigError, MainspringError, UserCodeError
from mainspring.features.definitions import reads_of
from mainspring.features.steps import views_of
from mainspring.plan.graph import Node, Plan
from mainspring.ports.catalog import Entity
from mainspring.ports.runtime import Card, Predictor, read_card
from mainspring.serving.metering import ModelMeter
from mainspring.serving.models import LiveModel, load_live, queue_of, warmed
from mainspring.serving.residency import Brought, Residency, Resident
from mainspring.serving.statistics import Statistics
from mainspring.serving.table import ModelTable
from mainspring.serving.telemetry import Labels, Metrics

__all__ = ["LiveLoader", "batching_of", "waiting_rows"]

_STEADY = frozenset({"onnx", "lightgbm", "xgboost", "skops"})
"""Formats whose calls take as long as was measured; others run code of the user's, and may do anything."""
_LEAST_ROWS = 32
"""Batches are not made smaller than this to keep a promised latency: they would cost more than they spare."""


class Wanted(msgspec.Struct, frozen=True):
    """How a model is to be warmed, and its calls scored together.

    Attributes:
        batching: as it was declared and set.
        latency_us: what its endpoint promises, or None.
        samples: the rows that its endpoint declares to warm it with.
    """

    batching: Batching = USUAL
    latency_us: int | None = None
    samples: tuple[Mapping[str, float | None], ...] = ()


class LiveLoader:
    """Loads versions of the app's models.

    Args:
        services: the project's ports.
        plan: the app's graph.
        metrics: where queues are counted.

    Raises:
        ConfigError: MS-4340, settings are for an endpoint that is none.
    """

    def __init__(self, services: Services, plan: Plan, metrics: Metrics) -> None:
        self._services = services
        self._app = plan.app
        self._metrics = metrics
        self._wanted = _wanted(plan, services.settings)
        self._quick_us = services.settings.number("serving.quick_us")
        self.measured: dict[str, Measured] = {}
        most = services.settings.setting("serving.memory")
        self.residency = None if most is None or most.value is None else Residency(int(str(most.value)))

    def load(self, name: str, version: Entity, folder: Path) -> LiveModel:
        """Load a registered version and warm it.

        Args:
            name: the model's name.
            version: the version.
            folder: its folder on this machine.

        Raises:
            MainspringError: as its runtime raises.
        """
        if self.residency is not None:
            return self._lazy(self.residency, name, version, folder)
        predictor, measured = self._brought(name, version, folder)
        return self._live(name, version.version, version.id, folder, predictor, measured)

    def _brought(self, name: str, version: Entity, folder: Path) -> tuple[Predictor, Measured]:
        """The forms of a version that are worth it here."""
        artifact = str(version.spec["artifact"])
        catalog = self._services.catalog
        known = recall(catalog, name, artifact)
        card = read_card(folder)
        recorded = cast("Mapping[str, object]", version.spec.get("card") or {})
        load = partial(self._services.predictor, vouched=str(recorded.get("digest", "")))
        predictor, measured = load_measured(folder, card, load, artifact, known)
        if measured is not known:
            _quietly(lambda: record(catalog, name, measured, now_us()))
        self.measured[name] = measured
        return predictor, measured

    def _lazy(self, residency: Residency, name: str, version: Entity, folder: Path) -> LiveModel:
        """A version that is loaded and warmed when it is asked first, in its own thread."""
        card, number = read_card(folder), str(version.version)

        def bring() -> Brought:
            predictor, measured = self._brought(name, version, folder)
            self._warm(name, version.version, version.id, folder, predictor)
            return Brought(predictor, _at_once(card, measured, self._quick_us))

        files = sum(path.stat().st_size for path in folder.iterdir())
        resident = Resident(f"{name} {number}", residency, bring, files)
        resident.takes_parameters = card.format == "pickle"
        statistics = Statistics()
        meter = ModelMeter(statistics, self._metrics, app=self._app, model=name, version=number)
        queue = queue_of(name, resident, self._wanted.get(name, Wanted()).batching, meter)
        return LiveModel(number, version.id, card, resident, queue, statistics=statistics)

    def load_folder(self, name: str, folder: Path) -> LiveModel:
        """Load the model of a folder that is in no registry.

        Raises:
            OSError, ValueError: there is none.
            MainspringError: as its runtime raises.
        """
        predictor, measured = load_measured(folder, read_card(folder), self._services.predictor, "", None)
        return self._live(name, 1, "", folder, predictor, measured)

    def _live(
        self, name: str, version: int, entity: str, folder: Path, predictor: Predictor, measured: Measured
    ) -> LiveModel:
        plain = self._warm(name, version, entity, folder, predictor)
        wanted = self._wanted.get(name, Wanted())
        statistics = Statistics()
        meter = ModelMeter(statistics, self._metrics, app=self._app, model=name, version=str(version))
        return replace(
            plain,
            batches=queue_of(name, predictor, _kept_to(wanted, measured), meter),
            at_once=_at_once(plain.card, measured, self._quick_us),
            statistics=statistics,
        )

    def _warm(self, name: str, version: int, entity: str, folder: Path, predictor: Predictor) -> LiveModel:
        """A version that has answered zeros of its schema, and what its endpoint declares.

        Raises:
            UserCodeError: MS-4254, it does not.
        """
        samples = self._wanted.get(name, Wanted()).samples
        try:
            plain = load_live(version, entity, folder, lambda _: predictor)
            return warmed(plain, samples) if samples else plain
        except Exception as error:
            told = error.what if isinstance(error, MainspringError) else f"{type(error).__name__}: {error}"
            raise UserCodeError(
                f"version {version} of model {name!r} does not answer the rows that it is warmed with",
                code="MS-4254",
                why=told,
                fix="mend the model, or warm= of its endpoint; the version before goes on",
            ) from error


def waiting_rows(table: ModelTable, app: str) -> Mapping[Labels, float]:
    """The rows that wait for each loaded version."""
    return {
        (("app", app), ("model", name), ("version", number)): float(live.batches.waiting_rows)
        for name in table.all()
        for number, live in table.versions(name).ready.items()
        if live.batches is not None
    }


def _at_once(card: Card, measured: Measured, quick_us: float) -> int:
    if card.format not in _STEADY:
        return 0
    return rows_within(measured.curve(), quick_us)


def _kept_to(wanted: Wanted, measured: Measured) -> Batching:
    """Batches that leave half of a promised latency to everything else."""
    if wanted.latency_us is None or wanted.batching.rows == 1:
        return wanted.batching
    most = max(rows_within(measured.curve(), wanted.latency_us / 2), _LEAST_ROWS)
    return wanted.batching.with_rows(min(wanted.batching.rows, most))


def _quietly(write: Callable[[], None]) -> None:
    """A catalog that cannot be written now keeps no model from answering: it is measured again the next time."""
    try:
        write()
    except MainspringError:
        return


def _wanted(plan: Plan, settings: Settings) -> Mapping[str, Wanted]:
    """How each model's calls are scored together: as its first endpoint says.

    Raises:
        ConfigError: MS-4340, settings are for an endpoint that is none.
    """
    named = {key.partition(".")[0]: item for key, item in settings.section("endpoints").items()}
    known = {node.name for node in plan.of_kind("endpoint")}
    if strange := next((name for name in named if name not in known), None):
        raise ConfigError(
            f"no endpoint is called {strange!r}",
            code="MS-4340",
            why=f"endpoints of the app: {', '.join(sorted(known)) or 'none'}",
            origin=named[strange].origin,
            fix="name an endpoint of the app in [endpoints.NAME], or remove the section",
        )
    found: dict[str, Wanted] = {}
    for node in plan.of_kind("endpoint", over="model"):
        spec = spec_of(cast(Endpoint, node.declaration))
        together = batching_of(node.name, spec.batching, settings)
        found.setdefault(name_of(spec.model), Wanted(together, spec.latency_us, _samples(plan, spec, node)))
    return found


def _samples(plan: Plan, spec: EndpointSpec, endpoint: Node) -> tuple[Mapping[str, float | None], ...]:
    """The rows that a version is warmed with.

    Raises:
        ConfigError: MS-4253, one has a column that the model does not read.
    """
    if not spec.warm:
        return ()
    names = [column.name for column in reads_of(spec_of(spec.model).inputs, views_of(plan)).columns]
    for row in spec.warm:
        for name, _ in row:
            if name not in names:
                raise ConfigError(
                    f"endpoint {endpoint.name!r} is warmed with a column {name!r} that its model does not read",
                    code="MS-4253",
                    why=f"it reads {', '.join(names)}",
                    origin=str(origin_of(cast(Endpoint, endpoint.declaration))),
                    fix=did_you_mean(name, names),
                )
    return tuple(dict(row) for row in spec.warm)


def batching_of(endpoint: str, declared: Batching, settings: Settings) -> Batching:
    """How an endpoint's calls are scored together: as it is declared, unless the settings say otherwise."""
    section = settings.section(f"endpoints.{endpoint}")
    values = {key: item.value for key, item in section.items() if item.value is not None}
    delay = values.get("batch_delay_ms")
    return declared.with_rows(
        cast(int, values.get("batch_rows", declared.rows)),
        delay_us=declared.delay_us if delay is None else round(cast(float, delay) * 1e3),
        queue_rows=cast(int, values.get("queue_rows", declared.queue_rows)),
        queue_bytes=cast(int, values.get("queue_bytes", declared.queue_bytes)),
    )
