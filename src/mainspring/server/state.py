"""What a serving process holds: models, endpoints, read plans, logs, monitors, and how each is brought up to date."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.model import Endpoint, Input, ModelDeclaration, ModelSpec
from mainspring.declare.on_demand import FeatureService
from mainspring.declare.record import Kind
from mainspring.errors import ConfigError
from mainspring.features.definitions import Reads, reads_of
from mainspring.features.logs.log import SourceTable
from mainspring.features.online.computed import SelectionPlan, compile_selection
from mainspring.features.online.sampled import Samples
from mainspring.features.online.service import ServedFeatures, serve_features
from mainspring.features.selection import Calculation, functions_of
from mainspring.features.steps import checked_views, derived_from, sources_of
from mainspring.features.view import View
from mainspring.monitoring.feeds import arrivals
from mainspring.plan.graph import Node, Plan
from mainspring.ports.catalog import Entity, Label
from mainspring.server.answering.knowledge import Knowledge
from mainspring.server.features.feast import FeastFeatures
from mainspring.server.features.labels import LabelRules
from mainspring.server.features.migrating import own_of
from mainspring.server.features.pushing import Pushing
from mainspring.server.features.quality import DataQuality
from mainspring.server.features.reads import count_reads
from mainspring.server.features.refilling import Refilling
from mainspring.server.features.replaying import ReplayWatch
from mainspring.server.features.sweeping import sweep_unused
from mainspring.server.features.vector_indexes import VectorIndexes
from mainspring.server.lock import unwritable
from mainspring.server.loop import online_views, segments_of
from mainspring.server.management.levels import Levels, levels_file
from mainspring.server.monitors import ModelMonitors
from mainspring.server.reporting import LogCounts, endpoint_rows
from mainspring.server.rollouts.asked import AskedFile, asked_file
from mainspring.server.rollouts.composing import (
    Compositions,
    composed_inputs,
    composed_reads,
    spec_of_endpoint,
    version_column,
)
from mainspring.server.rollouts.ledger import Ledgers
from mainspring.server.rollouts.live import LiveLoader, waiting_rows
from mainspring.server.rollouts.loading import ModelLoading, Own
from mainspring.server.rollouts.reading import EndpointRoutes, shadow_log
from mainspring.server.scoring.jobs import Scorings
from mainspring.server.workers.board import Board, board_file
from mainspring.server.workers.budgets import budgets_file
from mainspring.server.workers.rates import rates_file
from mainspring.server.workers.status import Flip, StatusFile, flips, read_statuses, status_of
from mainspring.server.workers.waiting import FlipWatch
from mainspring.serving.calls import Reason, Rejected
from mainspring.serving.counts import ModelCounts
from mainspring.serving.endpoint import EndpointService, ModelColumn, dates_among
from mainspring.serving.exposition import protobuf_page, wants_protobuf
from mainspring.serving.merging import MOMENTARY, WorkerMetrics
from mainspring.serving.models import LiveModel
from mainspring.serving.predlog.schema import ColumnKind, LogSchema
from mainspring.serving.predlog.writer import PredictionLog
from mainspring.serving.table import ModelTable
from mainspring.serving.telemetry import Metrics, Series, page

if TYPE_CHECKING:
    from mainspring.metrics.arrays import Ints

__all__ = ["WorkerState", "ending_of", "metrics_file"]

_KEEP_SEGMENTS = 4
_CHAMPION = "champion"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOGGED_AS: Mapping[Kind, ColumnKind] = {Kind.INTEGER: "i8", Kind.BOOLEAN: "bool", Kind.STRING: "category"}


class WorkerState:
    """The state of one serving process.

    Args:
        services: the project's ports.
        plan: the app's graph.
        worker: the worker's number.
        only: the names of the endpoints to answer for, with their models; empty is all of them.
        workers: how many workers the server has.

    Attributes:
        tried: whether it is only measured: nothing it logs is judged, and no schedule is fired.

    Raises:
        StoreError: MS-4101, the disk is full; MS-4111, the state folder cannot be written.
    """

    def __init__(
        self, services: Services, plan: Plan, worker: int = 0, only: Sequence[str] = (), workers: int = 1
    ) -> None:
        self.services = services
        self.plan = plan
        trial = services.settings.text("serving.trial")
        self.tried = bool(trial)
        self._kept = Path(trial) if trial else services.state
        path = metrics_file(self._kept, worker, only)
        self.metrics = _metrics(path)
        self.together = WorkerMetrics(self.metrics, path, workers) if workers > 1 else None
        fine, finely = fine_file(path), self.metrics.fine
        self._finely = WorkerMetrics(finely, fine, workers) if workers > 1 and finely is not None else None
        self._counts = ModelCounts(self.metrics, plan.app)
        self.board = Board(board_file(self._kept, ending_of(only)), worker) if workers > 1 else None
        self.budgets_file = budgets_file(self._kept, ending_of(only)) if workers > 1 else None
        self.rates_file = rates_file(self._kept, ending_of(only)) if workers > 1 else None
        self.ledgers = Ledgers(self._kept / "rollouts", f"{worker}{ending_of(only)}")
        self.levels = Levels(levels_file(self._kept, ending_of(only)) if workers > 1 else None)
        words = ("--profile", services.settings.profile, "--project", str(services.project))
        self.scorings = Scorings(self._kept / "scorings", self.names, words, _tell)
        self.said = StatusFile(self._kept, worker, ending_of(only))
        self.watch = FlipWatch(self.flips, services.settings.number("serving.flip"), _tell, time.monotonic)
        self.metrics.clear(MOMENTARY)
        self._only, self._ending = frozenset(only), ending_of(only)
        self.models = ModelTable()
        self.loader = LiveLoader(services, plan, self.metrics)
        self.metrics.gauge_from("mainspring_queue_rows", lambda: waiting_rows(self.models, plan.app))
        self.endpoints: dict[str, EndpointService] = {}
        self.feature_services: dict[str, ServedFeatures] = {}
        self.logs: dict[str, PredictionLog] = {}
        self._logged = LogCounts(self.metrics, plan.app, self.logs)
        self.knowledge = Knowledge(services, plan)
        self.vector_indexes = VectorIndexes(services, Plan(plan.app, ()), {}, {}, self.metrics, _tell)
        self.started = now_us()
        self.quality: DataQuality
        self.refilling: Refilling
        share = 0.0 if self.tried or worker else services.settings.number("features.replay")
        self.samples = Samples(share) if share else None
        self.pushing: Pushing | None = None
        self.monitors = ModelMonitors(services, plan, self.endpoints, self.metrics, self._came, _tell)
        self._replaying: ReplayWatch | None = None
        self._worker = worker
        self._views: dict[str, View] = {}
        self._checked: dict[str, View] = {}
        self._sources: dict[str, SourceTable] = {}
        self._plans: dict[str, SelectionPlan] = {}
        self._opening = threading.Lock()
        self._schemas: dict[str, LogSchema] = {}
        self._shadow_logs: dict[str, PredictionLog] = {}
        self.loading = ModelLoading(
            services,
            plan,
            self.models,
            self.metrics,
            self._served_models,
            self._reads,
            _tell,
            self.loader.load,
            self.board,
            self.ledgers.own,
            AskedFile(asked_file(self._kept, self._ending), self._everywhere) if workers > 1 else None,
        )
        self.compositions = Compositions(
            services, plan, self.models, self.loading, self.metrics, lambda: self._views, _tell
        )
        self.loading.before_flip = self.compositions.prepare
        self._promised: dict[str, float] = {}

    # -- starting -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Load what is declared; endpoints whose model has no champion yet come up when it has one.

        Raises:
            ConfigError: as the choice of adapters raises.
        """
        self._sources = sources_of(self.plan)
        self._views = online_views(self.services, self.plan)
        self._checked = checked_views(self.plan, self._views)
        logs = {name: source.log for name, source in self._sources.items()}
        name = f"worker-{self._worker}"
        self.quality = DataQuality(self.services, self.plan, self._views, logs, self.metrics, name)
        derived = derived_from(self.plan, self._checked, self._sources)
        if self._has_tables():  # an image that only serves has none: it answers, and takes no pushes
            self.pushing = Pushing(
                self.services, self.plan.app, self._sources, self._checked, derived, self.metrics, self.quality.pushed
            )
            self._replaying = self._replays(self.pushing)
        self.vector_indexes = VectorIndexes(self.services, self.plan, self._views, self._sources, self.metrics, _tell)
        self.refilling = Refilling(self.services, self._kept_online, self._sources, _tell)
        for node in self._served():
            spec = spec_of(cast(Endpoint, node.declaration))
            model = spec_of(spec.model)
            read = reads_of(model.inputs, self._views), model.inputs
            self._open_endpoint(node, name_of(spec.model), model, read, (spec.latency_us, spec.log))
        for node in self._served(over="composition"):
            over = spec_of_endpoint(node)
            composed = spec_of(over.model)
            read = composed_reads(composed, self._views), composed_inputs(composed)
            first = spec_of(composed.models[0])
            parts = [name_of(part) for part in composed.models]
            kept = (over.latency_us, over.log)
            binary = None if composed.gives is None else composed.gives == "probability"
            self._open_endpoint(node, name_of(over.model), first, read, kept, parts, binary)
        for node in self.plan.of_kind("feature_service"):
            inputs = spec_of(cast(FeatureService, node.declaration)).inputs
            self.feature_services[node.name] = serve_features(
                node.name,
                inputs,
                self._views,
                self.services.online,
                self.samples,
                count_reads(self.metrics, self.plan.app, node.name),
            )
        self.refresh()
        while self.board is not None and not self.board.join(self.loading.votes()):
            self.refresh()  # the others have gone on meanwhile

    def _has_tables(self) -> bool:
        try:
            self.services.decision("tables")
        except ConfigError:
            return False
        return True

    def _served(self, over: str = "model") -> Sequence[Node]:
        """The endpoints over models, or over compositions, that this process answers for."""
        return [node for node in self.plan.of_kind("endpoint", over=over) if not self._only or node.name in self._only]

    def _open_endpoint(
        self,
        node: Node,
        model_name: str,
        model: ModelSpec,
        read: tuple[Reads, Sequence[Input]],
        kept: tuple[int | None, float],
        parts: Sequence[str] = (),
        binary: bool | None = None,
    ) -> None:
        """Answer for an endpoint over a model, or over the composition of which it is the first.

        Args:
            node: the endpoint's.
            model_name: the name of what answers.
            model: the model.
            read: what is read, and the inputs that say so.
            kept: the promised latency in microseconds, and the share of answers that is logged.
            parts: the names of a composition's models.
            binary: whether it gives probabilities, where its label does not say so.
        """
        (reads, inputs), (latency_us, share) = read, kept
        selection = reads.selection
        self._plans[node.name] = compile_selection(self.services.online, selection, functions_of(inputs), self.samples)
        spine = spec_of(model.spine)
        columns = _model_columns(reads)
        keys = selection.keys
        keys |= {name: found.type for name in keys if (found := spine.field(name)) is not None}
        # What monitors tell rows apart by is logged too, where it is no input of the model.
        own = {column.name for column in columns if column.feature is None}
        types = {field.name: field.type.kind for field in spine.fields}
        model_node = self.plan.node(f"/model/{model_name}")
        beside = [name for name in segments_of(self.plan, model_node) if name not in own] if model_node else []
        kinds = [column.type.kind for column in columns] + [types[name] for name in beside]
        folder = self._kept / "predictions" / node.name
        names = (*(column.name for column in columns), *beside, *map(version_column, parts))
        logged: list[ColumnKind] = [_LOGGED_AS.get(kind, "f8") for kind in kinds]
        logged += ["i8"] * len(parts)
        schema = LogSchema(node.name, model_name, names, tuple(logged))
        log = PredictionLog(folder, schema, self._worker, share or 1.0)
        self._schemas[node.name] = schema
        self.logs[node.name] = log
        if latency_us is not None:
            self._promised[node.name] = latency_us / 1e3
            promised = latency_us / 1e6
            self.metrics.set("mainspring_endpoint_latency_seconds", promised, app=self.plan.app, endpoint=node.name)
        self.endpoints[node.name] = EndpointService(
            node.name,
            model_name,
            keys,
            columns,
            lambda: self._plans[node.name],
            lambda: self._live(model_name),
            log if share else None,
            boolean=model.label.field.type.kind is Kind.BOOLEAN if binary is None else binary,
            ignored=frozenset(types) - {model.label.name},
            beside=beside,
            request={field.name: field.type for field in selection.request},
            waits=self.waits,
            routes=EndpointRoutes(self.models, self.loading, model_name, lambda: self._plans[node.name], columns),
            shadows=lambda: self._shadow_log(node.name) if share else None,
            counts=self._counts,
        )

    def _shadow_log(self, endpoint: str) -> PredictionLog:
        """Where a shadow's answers are logged: beside the endpoint's log, in one that no monitor follows."""
        with self._opening:
            found = self._shadow_logs.get(endpoint)
            if found is None:
                schema = self._schemas[endpoint]
                folder = self._kept / "predictions" / shadow_log(endpoint)
                found = self._shadow_logs[endpoint] = PredictionLog(folder, schema, self._worker)
            return found

    @property
    def waits(self) -> bool:
        """Whether the online store is another machine, so that an event loop should not wait for it."""
        return not self.services.decision("online").chosen.embedded

    def _live(self, model: str) -> LiveModel:
        live = self.models.get(model)
        if live is None:
            raise ConfigError(
                f"model {model!r} has no champion yet",
                code="MS-3019",
                why="no version was trained, or none was promoted",
                fix=f"mainspring run model/{model}",
            )
        return live

    # -- keeping up ---------------------------------------------------------------------------------------------

    def refresh(self) -> list[str]:
        """Take over what has moved, old versions answering until new ones are warm; the models that changed."""
        try:
            changed = self.loading.refresh()
        finally:
            self.said.write(status_of(self.loading, self.models))
        if changed and not self.tried:
            self.monitors.open(changed)
        behind = [node.inputs[0] for node in self._served(over="composition")]
        return changed + self.compositions.refresh(behind)

    def flips(self) -> Sequence[Flip]:
        """The versions that the workers of this server do not answer with yet."""
        return flips(read_statuses(self._kept, self._ending))

    def _everywhere(self, model: str, holds: Callable[[str, tuple[str, ...]], bool]) -> bool:
        """Whether something holds of a model in all workers that answer."""
        said = [status.models.get(model) for status in read_statuses(self._kept, self._ending).values()]
        return all(one is None or holds(one.answers, one.ready) for one in said)

    def lacking(self) -> Mapping[str, Mapping[str, str]]:
        """The versions beside that some worker of this server cannot load, with the reason, by model."""
        found: dict[str, dict[str, str]] = {}
        for status in read_statuses(self._kept, self._ending).values():
            for name, model in status.models.items():
                found.setdefault(name, {}).update(model.lacking)
        return found

    def _reads(self, node: Node, version: Entity, live: LiveModel) -> Own | None:
        """What a version was trained to read, where that is not what the app declares now."""
        own = own_of(self.services, node, version, self._views, self._sources)
        labels = {"app": self.plan.app, "model": node.name}
        self.metrics.set("mainspring_model_definitions_lost", 0 if own is None else len(own.lost), **labels)
        if own is None:
            return None
        for lost in own.lost:
            _tell(f"model {node.name} version {live.version} reads {lost.url} as it is no more: {lost.why}")
        if self.pushing is not None:
            self.pushing.follow(own.followed)
        gone = {one.name: _gone(one) for one in own.reads.selection.calculations}
        functions = gone | functions_of(spec_of(cast(ModelDeclaration, node.declaration)).inputs)
        plan = compile_selection(
            self.services.online, own.reads.selection, functions, None if own.lost else self.samples
        )
        columns = tuple(_model_columns(own.reads))
        return plan, columns, dates_among(columns)

    def _kept_online(self) -> Sequence[View]:
        """The app's views, and those of older definitions that a champion reads."""
        followed = [] if self.pushing is None else self.pushing.followed()
        return list({view.id: view for view in (*followed, *self._views.values()) if view.online}.values())

    def sweep_once(self) -> None:
        """Remove from the stores what nothing has read for a day."""
        served = {
            node.name: {int(number) for number in self.models.versions(node.name).ready}
            for node in self.plan.of_kind("model")
        }
        for what in sweep_unused(self.services, self.plan, self._views, self._sources, served, "server"):
            _tell(f"swept: {what}")

    def _served_models(self) -> Sequence[Node]:
        """The models that this process may serve."""
        behind = self._behind()
        return [node for node in self.plan.of_kind("model") if not self._only or node.url in behind]

    def _behind(self) -> frozenset[str]:
        """The models behind endpoints, those of their compositions too, by URL."""
        composed = [self.plan.node(node.inputs[0]) for node in self._served(over="composition")]
        parts = {url for node in composed if node is not None for url in node.inputs}
        return frozenset({url for node in self._served() for url in node.inputs} | parts)

    def ready(self) -> bool:
        """Whether every endpoint has a warm model, and every index a version that answers.

        A model that somebody has unloaded is not waited for.
        """
        wanted = {service.model for service in self.endpoints.values()} - self.loading.unloaded()
        models = all(self.models.get(model) is not None for model in wanted)
        return models and self.knowledge.ready() and self.vector_indexes.ready()

    def names(self) -> Sequence[str]:
        """The models that this process may serve."""
        return self.loading.names()

    def load_folder(self, name: str, folder: Path) -> None:
        """Load a model from a folder that the platform has put there, and let it answer beside the app's.

        Raises:
            Rejected: INVALID, there is no model of ours in the folder; CONFLICT, the name is the app's own.
        """
        if name in self.names():
            raise Rejected(Reason.CONFLICT, f"model {name!r} is one of the app's own")
        try:
            live = self.loader.load_folder(name, folder)
        except (OSError, ValueError) as error:
            raise Rejected(Reason.INVALID, f"there is no model in the folder of {name!r}") from error
        self.models.put(name, live)

    def unload_folder(self, name: str) -> None:
        """Let a model from a folder answer no more."""
        self.models.remove(name)

    # -- data that comes in -------------------------------------------------------------------------------------

    def push(
        self, source: str, rows: Sequence[Mapping[str, Any]] | bytes, now: int | str | None, request_id: str | None
    ) -> Mapping[str, object]:
        """Take rows of a source; see `Pushing.push`.

        Raises:
            ConfigError: MS-3010 to MS-3013, there are no tables here.
        """
        if self.pushing is None:
            self.services.decision("tables")
        assert self.pushing is not None
        return self.pushing.push(source, rows, now, request_id)

    @property
    def sources(self) -> Mapping[str, SourceTable]:
        """The sources that take pushes, by name."""
        return self._sources if self.pushing is not None else {}

    def feast(self) -> FeastFeatures | None:
        """The views that are kept online, as Feast's clients ask for them; None when there are none."""
        if not any(view.online for view in self._views.values()):
            return None
        return FeastFeatures(self.services, self.plan, self._views, self._sources, self.push, self.metrics)

    def take_labels(self, labels: Sequence[tuple[str, str, float, int]]) -> Mapping[str, int]:
        """Record labels of predictions; the latest of each wins.

        Raises:
            Fault: 422, one of them cannot be a label of a served model.
        """
        received = now_us()
        behind = self._behind()
        nodes = [node for node in self._served_models() if node.url in behind]
        served = [spec_of(cast(ModelDeclaration, node.declaration)) for node in nodes]
        rules = LabelRules(tuple(model.label for model in served), self.services.settings.flag("serving.replay"))
        rules.check(labels, received)
        fresh = self.services.catalog.add_labels(
            [Label(identity, name, value, at, received) for identity, name, value, at in labels]
        )
        self.metrics.counter("mainspring_labels_total", app=self.plan.app)(fresh)
        return {"accepted": fresh, "duplicate": len(labels) - fresh}

    # -- monitors -----------------------------------------------------------------------------------------------

    def _came(self, source: str, start: int, stop: int) -> Ints:
        """The event times of a source's rows in a span, those that were pushed just now too."""
        if self.pushing is not None:
            self.pushing.commit(source)
        return arrivals(self.services.tables, self._sources[source], start, stop)

    def _replays(self, pushing: Pushing) -> ReplayWatch | None:
        if self.samples is None:
            return None
        return ReplayWatch(self.plan.app, self.services, self.samples, self.metrics, pushing.waits_since)

    def replay_once(self) -> int:
        """Compute sampled answers again offline; how many there were."""
        return 0 if self._replaying is None else self._replaying.once()

    def monitor_once(self) -> int:
        """Follow the prediction logs, judge closed blocks, compact old segments; how many blocks were judged."""
        self._logged.count()
        if self.pushing is not None:
            self.quality.once()
        return self.monitors.once()

    # -- stopping -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Seal the logs and let go of the services."""
        self.vector_indexes.stop()
        self.scorings.close()
        self.said.remove()
        self.monitors.close()
        self.loading.close()
        for log in (*self.logs.values(), *self._shadow_logs.values()):
            log.close()
        self._logged.count()
        if self.pushing is not None:
            self.pushing.close()
        self.services.close()

    def metrics_page(self, accept: bytes) -> tuple[bytes, bytes]:
        """The metrics page for an Accept header, content type and text, with what the prediction logs have counted."""
        self._logged.count()
        if self.pushing is not None:
            self.pushing.measure()
        numbers = self.metrics.numbers() if self.together is None else self.together.merged()
        if not wants_protobuf(accept) or self.metrics.fine is None:
            return page(numbers, accept)
        return protobuf_page(numbers, self.metrics.fine.numbers() if self._finely is None else self._finely.merged())

    def numbers(self) -> Mapping[Series, float]:
        """Every number that is counted, of all workers."""
        self._logged.count()
        return self.metrics.numbers() if self.together is None else self.together.merged()

    def publish_metrics(self) -> None:
        """Bring what other workers read of this one up to date."""
        self._logged.count()
        if self.pushing is not None:
            self.pushing.measure()
        self.metrics.publish()

    def report(self) -> list[dict[str, object]]:
        """A row for each endpoint, as the console shows it."""
        return endpoint_rows(self.plan.app, self.endpoints, self.models, self.metrics, self._promised)


def _model_columns(reads: Reads) -> list[ModelColumn]:
    return [ModelColumn(column.name, column.type, column.place) for column in reads.columns]


def _gone(calculation: Calculation) -> Callable[..., object]:
    """Stands for an on-demand function that the app declares no more: who asks for it is told so."""
    why = f"the app declares {calculation.name} no more"
    if calculation.written == "sql":
        return lambda: f"select error('{why}') as {calculation.fields[0].name}"

    def gone(*args: object, **inputs: object) -> object:
        raise LookupError(why)

    return gone


def metrics_file(kept: Path, worker: int, only: Sequence[str]) -> Path:
    """Where a worker counts."""
    return kept / "metrics" / f"worker-{worker}{ending_of(only)}.bin"


def ending_of(only: Sequence[str]) -> str:
    """What tells the files of a server that serves some endpoints alone from those of others."""
    return "".join(f"-{name}" for name in sorted(only))


def fine_file(path: Path) -> Path:
    """Where a worker counts the fine buckets of its histograms."""
    return path.with_suffix(".fine.bin")


def _metrics(path: Path) -> Metrics:
    try:
        return Metrics(path, Metrics(fine_file(path)))
    except OSError as error:
        raise unwritable(path.parent.parent, error) from error


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
