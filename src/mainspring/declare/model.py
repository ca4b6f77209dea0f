"""Models, promotions, endpoints, monitors and schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import msgspec

from mainspring.declare.artifact import Model
from mainspring.declare.batching import USUAL, Batching
from mainspring.declare.data import Column, FeatureView, Source
from mainspring.declare.declaration import Declaration, DeclaredKind
from mainspring.declare.frame import Frame
from mainspring.declare.on_demand import ModelInput as Input
from mainspring.declare.origin import Origin
from mainspring.declare.rollout import RolloutStep, Versions
from mainspring.declare.step import Pipeline, Step, StepOptions

__all__ = [
    "Endpoint",
    "EndpointSpec",
    "Input",
    "ModelDeclaration",
    "ModelSpec",
    "Monitor",
    "MonitorSpec",
    "Promotion",
    "PromotionSpec",
    "Schedule",
    "ScheduleSpec",
    "Score",
    "Trainer",
]

Trainer = Callable[..., Model]


@dataclass(frozen=True, slots=True)
class Score:
    """How one model version did on the rows of a comparison; each metric is an attribute: ``new.roc_auc``.

    Attributes:
        version: the model version.
        metrics: the value of each metric.
    """

    version: str
    metrics: Mapping[str, float]

    def __getattr__(self, name: str) -> float:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self.metrics[name]
        except KeyError:
            known = f"no metric {name!r}; known: {', '.join(self.metrics)}"
            raise AttributeError(known, name=name, obj=self) from None


class ModelSpec(msgspec.Struct, frozen=True):
    """A model: what it is trained on and how it is judged.

    Attributes:
        function: the trainer; takes the inputs and the label as frames, then parameters with defaults.
        inputs: feature views, features, on-demand features and columns of the label's source, in the order of the
            model's columns.
        label: the column to predict.
        known_at: the column with the moment the label is known, or None when it is known at event time.
        metric: the name of the metric that decides.
        slices: columns whose values are judged apart.
        holdout: the share of the newest rows kept for evaluation, in (0, 1).
        gap_us: rows this much before the evaluation's first row are left out of training, in microseconds.
        tolerance: how far the converted model's score may be from the native one.
        seed: seeds the training.
        options: how the training step is run.
    """

    function: Trainer
    inputs: tuple[Input, ...]
    label: Column
    known_at: Column | None
    metric: str
    slices: tuple[Column, ...]
    holdout: float
    gap_us: int
    tolerance: float
    seed: int
    options: StepOptions

    @property
    def spine(self) -> Source:
        """The source whose rows are the examples: the label's."""
        return self.label.source


class ModelDeclaration(Declaration[ModelSpec]):
    """A declared model; calling it trains in process."""

    def __init__(self, spec: ModelSpec, origin: Origin, name: str) -> None:
        super().__init__(DeclaredKind.MODEL, spec, origin, name)
        self.__wrapped__ = spec.function
        self.__doc__ = spec.function.__doc__

    def __call__(self, x: Frame, y: Frame, **params: object) -> Model:
        """Train on these inputs (rows, columns) and this label, a frame of one column, in process."""
        return self._spec.function(x, y[y.columns[0]], **params)


class PromotionSpec(msgspec.Struct, frozen=True):
    """When a challenger becomes the champion.

    Attributes:
        model: whose versions.
        when: judges the challenger and the champion on the same rows; None asks only for `margin`.
        margin: the paired bootstrap's lower 95 % bound of the difference must be above ``-margin``; None leaves it out.
        rollout: the stretches in which it takes over from the champion; none is at once.
    """

    model: ModelDeclaration
    when: Callable[[Score, Score], bool] | None
    margin: float | None
    rollout: tuple[RolloutStep, ...] = ()


class Promotion(Declaration[PromotionSpec]):
    """A declared promotion rule."""

    __slots__ = ()

    def __init__(self, spec: PromotionSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.PROMOTION, spec, origin, name)


Sample = tuple[tuple[str, float | bool | None], ...]
"""A row by the names of a model's columns; what is left out is missing."""


class EndpointSpec(msgspec.Struct, frozen=True):
    """A model behind a URL.

    Attributes:
        model: what answers.
        latency_us: the promised latency in microseconds, or None.
        log: the share of answers that the prediction log keeps, in [0, 1].
        batching: how calls that wait for the model are scored together.
        versions: which versions are loaded: so many of the newest, ``all``, or these numbers.
        warm: rows of the model's columns that a version answers before it is ready, each as pairs of names and values.
    """

    model: ModelDeclaration
    latency_us: int | None
    log: float
    batching: Batching = USUAL
    versions: Versions = 1
    warm: tuple[Sample, ...] = ()


class Endpoint(Declaration[EndpointSpec]):
    """A declared endpoint."""

    __slots__ = ()

    def __init__(self, spec: EndpointSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.ENDPOINT, spec, origin, name)


class MonitorSpec(msgspec.Struct, frozen=True):
    """What is watched of a model, and what an alarm does.

    Attributes:
        model: whose prediction log and labels are watched.
        false_alarms: the alarm budget, as written: ``1 per quarter``.
        on_alarm: ``retrain`` starts a training whose gate decides; ``notify`` only tells.
        block: the length of a block of event time: ``hour`` or ``day``.
        watch: the input columns and metrics that are watched; empty is all of them.
        segments: columns by whose values the rows are watched apart.
        cooldown_us: the least time between two retrainings, in microseconds of event time.
    """

    model: ModelDeclaration
    false_alarms: str
    on_alarm: Literal["retrain", "notify"]
    block: Literal["hour", "day"]
    watch: tuple[str, ...]
    segments: tuple[Column, ...]
    cooldown_us: int


class Monitor(Declaration[MonitorSpec]):
    """A declared monitor."""

    __slots__ = ()

    def __init__(self, spec: MonitorSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.MONITOR, spec, origin, name)


class ScheduleSpec(msgspec.Struct, frozen=True):
    """When something runs by itself.

    Attributes:
        target: what runs.
        cron: a cron expression of five fields.
        zone: the IANA time zone the expression is read in.
        missed: after a pause, ``latest`` runs the last due time only, ``all`` each of them.
        arguments: the pipeline's arguments.
    """

    target: Source | FeatureView | ModelDeclaration | Pipeline[..., object] | Step[..., object]
    cron: str
    zone: str
    missed: Literal["latest", "all"]
    arguments: Mapping[str, object]


class Schedule(Declaration[ScheduleSpec]):
    """A declared schedule."""

    __slots__ = ()

    def __init__(self, spec: ScheduleSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.SCHEDULE, spec, origin, name)


def trainer(function: Callable[..., object]) -> Trainer:
    """The function as a trainer; what it really returns is checked when it runs."""
    return cast(Trainer, function)
