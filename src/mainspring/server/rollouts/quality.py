"""The losses of two versions of a model, from the prediction logs and the labels that arrive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from mainspring.catalog.rollouts import Rollout
from mainspring.ports.catalog import Catalog
from mainspring.server.rollouts.judge import Losses
from mainspring.serving.predlog.reader import LogReader
from mainspring.serving.rollout.evidence import cell_of

__all__ = ["Quality"]

_KEPT = 500_000
"""The most predictions of a rollout that wait for their labels in memory; the oldest are forgotten first."""

_PAGE = 100_000
_OVERLAP_US = 5_000_000
"""How far each look at the labels goes back, microseconds: one that was received earlier may be written later."""


class Quality(msgspec.Struct):
    """Follows the logs and the labels of one rollout; made anew from both after a restart.

    Attributes:
        rollout: the rollout.
        catalog: where labels are.
        readers: the logs of the endpoints over the model, those of their shadows too.
        binary: whether the label is boolean.
        label: the label's column.
    """

    rollout: Rollout
    catalog: Catalog
    readers: Sequence[LogReader]
    binary: bool
    label: str
    _scores: dict[str, dict[int, float]] = msgspec.field(default_factory=dict)
    _early: dict[str, float] = msgspec.field(default_factory=dict)
    _found: dict[int, Losses] = msgspec.field(default_factory=dict)
    _received: int = 0

    def once(self) -> tuple[Losses, Losses] | None:
        """Take what is new; the losses of the version that answers the rest and of the canary, None without a label."""
        for reader in self.readers:
            if reader.since is None:
                reader.since = datetime.fromtimestamp(self.rollout.started / 1e6, UTC)
            for rows in reader.new_rows():
                self._take(rows.select(["prediction_id", "version", "score"]).to_pylist())
        self._labels()
        if not self._found:
            return None
        return self._found.get(self.rollout.stable, Losses()), self._found.get(self.rollout.canary, Losses())

    def _take(self, rows: Sequence[Mapping[str, object]]) -> None:
        versions, begun = (self.rollout.stable, self.rollout.canary), self.rollout.started // 1000
        for row in rows:
            identity, version, score = str(row["prediction_id"]), int(str(row["version"])), float(str(row["score"]))
            if version not in versions or int(identity[:12], 16) < begun:  # a UUIDv7 begins with its milliseconds
                continue
            if identity in self._early:
                self._count(version, score, self._early[identity])
                continue
            self._scores.setdefault(identity, {})[version] = score
        while len(self._scores) > _KEPT:
            self._scores.pop(next(iter(self._scores)))

    def _labels(self) -> None:
        self._received = self._received or self.rollout.started
        since, behind = self._received - _OVERLAP_US, None
        while labels := self.catalog.labels_after(since, _PAGE, behind=behind):
            for label in labels:
                if label.name not in ("", self.label):
                    continue
                for version, score in self._scores.pop(label.prediction_id, {}).items():
                    self._count(version, score, label.value)
                self._early[label.prediction_id] = label.value  # a shadow may answer later than the label came
            behind = labels[-1]
            self._received = behind.received
            while len(self._early) > _KEPT:
                self._early.pop(next(iter(self._early)))
            if len(labels) < _PAGE:
                return

    def _count(self, version: int, score: float, value: float) -> None:
        found = self._found.get(version, Losses())
        gap = abs(score - value)
        cells = dict(found.cells)
        if not self.binary:
            cell = cell_of(gap * 1e6)
            cells[cell] = cells.get(cell, 0) + 1
        self._found[version] = Losses(found.labels + 1, found.total + gap * gap, cells)
