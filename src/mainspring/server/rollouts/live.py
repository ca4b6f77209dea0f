"""Model versions come to life: the cheapest of their forms, a queue of their own, warm before anybody asks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from mainspring.catalog.ids import now_us
from mainspring.choose.backends import Measured, load_measured, recall, record, rows_within
from mainspring.choose.services import Services
from mainspring.config.settings import Settings
from mainspring.declare.batching import USUAL, Batching
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.model import Endpoint
from mainspring.errors import ConfigError, MainspringError
from mainspring.plan.graph import Plan
from mainspring.ports.catalog import Entity
from mainspring.ports.runtime import Card, Predictor, read_card
from mainspring.serving.metering import ModelMeter
from mainspring.serving.models import LiveModel, load_live, queue_of
from mainspring.serving.residency import Brought, Residency, Resident
from mainspring.serving.statistics import Statistics
from mainspring.serving.telemetry import Metrics

__all__ = ["LiveLoader", "batching_of"]

_STEADY = frozenset({"onnx", "lightgbm", "xgboost", "skops"})
"""Formats whose calls take as long as was measured; others run code of the user's, and may do anything."""
_LEAST_ROWS = 32
"""Batches are not made smaller than this to keep a promised latency: they would cost more than they spare."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a model's calls are to be scored together.

    Attributes:
        batching: as it was declared and set.
        latency_us: what its endpoint promises, or None.
    """

    batching: Batching = USUAL
    latency_us: int | None = None


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
            load_live(version.version, version.id, folder, lambda _: predictor)
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
        plain = load_live(version, entity, folder, lambda _: predictor)
        wanted = self._wanted.get(name, Wanted())
        statistics = Statistics()
        meter = ModelMeter(statistics, self._metrics, app=self._app, model=name, version=str(version))
        return replace(
            plain,
            batches=queue_of(name, predictor, _kept_to(wanted, measured), meter),
            at_once=_at_once(plain.card, measured, self._quick_us),
            statistics=statistics,
        )


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
        found.setdefault(name_of(spec.model), Wanted(batching_of(node.name, spec.batching, settings), spec.latency_us))
    return found


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
