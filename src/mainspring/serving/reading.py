"""What an endpoint asks of others and what it answers: features read, versions that score, logs, looked-up rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec

from mainspring.declare.record import ColumnType
from mainspring.serving.models import LiveModel
from mainspring.serving.rollout.split import Role, Split
from mainspring.serving.versions import ModelVersions

__all__ = [
    "ANY",
    "Answer",
    "Asked",
    "FeatureReader",
    "Looked",
    "LookedUp",
    "ModelColumn",
    "PredictionSink",
    "Reading",
    "Routes",
    "Scorer",
    "ShadowSink",
]

Looked: TypeAlias = tuple[Sequence[object], Mapping[str, str]]
"""What was looked up for a row: the features' values, and the status of each view."""


class FeatureReader(Protocol):
    """A compiled read of all features an endpoint needs."""

    def read_one(self, keys: Mapping[str, object], now_us: int) -> tuple[Sequence[object], Mapping[str, str]]:
        """The features' values in the plan's order, and the status of each view by name."""

    def read_many(self, entities: Sequence[Mapping[str, object]], moments: Sequence[int]) -> Sequence[Looked]:
        """The same for many, with one round trip to the store."""


class Scorer(Protocol):
    """The model version that answers now."""

    @property
    def version(self) -> str:
        """Its version."""

    def score(self, rows: Sequence[Sequence[object]]) -> Sequence[float]:
        """One score a row; a row holds the model's columns in order, None for what is missing."""

    async def score_soon(self, rows: Sequence[Sequence[object]]) -> tuple[Sequence[float], int]:
        """The same on an event loop, which goes on meanwhile when it takes long, and the nanoseconds that it waited."""


class PredictionSink(Protocol):
    """Where answers are logged."""

    def put(self, values: Sequence[object], score: float, version: str, ts_us: int, *, role: str = Role.STABLE) -> str:
        """Log one answer: the model's columns, then what is logged beside them; its prediction id."""


class ShadowSink(Protocol):
    """Where a shadow's answers are logged: a log of its own, that no monitor follows."""

    def put(
        self,
        values: Sequence[object],
        score: float,
        version: str,
        ts_us: int,
        *,
        role: str = Role.SHADOW,
        identity: bytes | None = None,
    ) -> str:
        """Log what a shadow would have answered, under the id of the answer that was given."""


class Routes(Protocol):
    """The versions of the model behind an endpoint."""

    def versions(self) -> ModelVersions:
        """Which there are now."""

    def reading(self, live: LiveModel) -> Reading:
        """A loaded version with what it reads."""


class ModelColumn(msgspec.Struct, frozen=True):
    """A column of the model, in the model's order.

    Attributes:
        name: its name.
        type: its type.
        feature: its place among the features that are read, or None when the request carries it.
    """

    name: str
    type: ColumnType
    feature: int | None


class Answer(msgspec.Struct, frozen=True):
    """One answer of an endpoint.

    Attributes:
        id: the prediction id, under which labels arrive later; empty when it was not logged.
        version: the model version that answered.
        score: the model's score: a probability for a boolean label, else the predicted number.
        prediction: the label that follows from the score.
        values: the model's columns, in order.
        statuses: the status of each feature view: PRESENT, MISSING or EXPIRED.
        columns: what the values are of.
        parts: of a composition, the version of each of its models.
    """

    id: str
    version: str
    score: float
    prediction: bool | float
    values: tuple[object, ...]
    statuses: Mapping[str, str]
    columns: tuple[ModelColumn, ...] = ()
    parts: Mapping[str, str] = msgspec.field(default_factory=dict)


class Reading(msgspec.Struct, frozen=True):
    """A model version with what it reads.

    Attributes:
        scorer: the version.
        reader: looks its features up.
        columns: its columns, in order.
        dates: as `dates_among` its columns.
        parts: of a composition, the version of each of its models; they are logged behind all else.
    """

    scorer: Scorer
    reader: FeatureReader
    columns: tuple[ModelColumn, ...]
    dates: tuple[int, ...] = ()
    parts: Mapping[str, str] = msgspec.field(default_factory=dict)


class LookedUp(msgspec.Struct, frozen=True):
    """What was looked up for rows of a request, and for which version: it is the one that answers.

    Attributes:
        rows: what was found for each row.
        reading: the version with what it reads.
        parts: of a request whose rows are parted between two versions, the places of each one's rows; `rows` is empty.
        split: how calls are parted, while they are.
    """

    rows: Sequence[Looked]
    reading: Reading
    parts: tuple[tuple[tuple[int, ...], LookedUp], ...] = ()
    split: Split | None = None


class Asked(msgspec.Struct, frozen=True):
    """Which version a request asks for: a number, a label, or the one that its key leads to.

    Attributes:
        version: the number.
        label: the label.
        key: what a caller stays with a version by; empty is each row's entity.
    """

    version: str | None = None
    label: str | None = None
    key: bytes = b""


ANY = Asked()
"""No version in particular."""
