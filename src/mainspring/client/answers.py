"""What a server answers, typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["FeatureAnswer", "Inference", "Labelled", "Prediction", "Pushed"]


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of an endpoint about a row.

    Attributes:
        id: the prediction's id, under which its label is sent later; empty when it was not logged.
        model: who answered.
        version: its version.
        prediction: true or false, or a number.
        score: the probability of true, or the number.
        status: of each feature view, PRESENT, MISSING or EXPIRED.
        features: what the model saw, where it was asked for.
    """

    id: str
    model: str
    version: str
    prediction: bool | float
    score: float
    status: dict[str, str]
    features: dict[str, Any] | None = None


class Labelled(msgspec.Struct, frozen=True):
    """How many labels were new, and how many were known already."""

    accepted: int
    duplicate: int = 0


class Pushed(msgspec.Struct, frozen=True):
    """How many rows of a push were taken, and how many were put aside for breaking a check."""

    accepted: int
    quarantined: int = 0


class FeatureAnswer(msgspec.Struct, frozen=True):
    """The features of entities.

    Attributes:
        names: the features, in order.
        rows: a row an entity, a value a feature; moments are microseconds since 1970, dates and decimals text.
        status: of each view a letter an entity: Present, Missing or Expired.
        event_us: of each view when the row that answers happened, an entity each, UTC microseconds.
    """

    names: Sequence[str]
    rows: Sequence[Sequence[Any]]
    status: Mapping[str, str]
    event_us: Mapping[str, Sequence[int | None]]

    def column(self, name: str) -> list[Any]:
        """The values of a feature, one an entity.

        Raises:
            ValueError: there is none of this name.
        """
        place = list(self.names).index(name)
        return [row[place] for row in self.rows]


class Inference(msgspec.Struct, frozen=True):
    """The answer of a model to tensors.

    Attributes:
        model: who answered.
        version: its version.
        outputs: the tensors, by name.
        ids: the prediction ids, a row each; none where the model has no endpoint.
    """

    model: str
    version: str
    outputs: Mapping[str, npt.NDArray[np.generic]]
    ids: Sequence[str] = ()
