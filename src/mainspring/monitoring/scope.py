"""What a monitor judges as one: all rows, or the rows of one segment, against their own reference."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from mainspring.monitoring.stats.baseline import Baseline
from mainspring.monitoring.stats.decide import WINDOWS, Finding, Thresholds, judge, thresholds
from mainspring.monitoring.stats.reference import Reference, reference
from mainspring.monitoring.stats.register import count_table
from mainspring.monitoring.stats.report import Known, moments, well_known
from mainspring.monitoring.stats.state import BlockState, merge

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LOOK_BACK", "Scope"]

LOOK_BACK = max(WINDOWS) - 1
"""Blocks before the one that closes that a judgement looks back on."""

States = Mapping[int, Mapping[str, BlockState]]
"""By block start (microseconds) and feature."""


class Scope:
    """Rows that are judged together.

    Args:
        segment: the segment's name; empty for all rows.
        baseline: their reference.
        alpha: the chance of a false alarm of one evaluation of one feature.
        fine: whether fine cells are counted too, for the statistics that are only reported.

    Attributes:
        segment: the segment's name.
        references: the reference of each feature.
    """

    def __init__(self, segment: str, baseline: Baseline, alpha: float, *, fine: bool = False) -> None:
        self.segment = segment
        self._fine = fine
        self._baseline = baseline
        names = [feature.name for feature in baseline.features]
        self.references: Mapping[str, Reference] = {name: reference(baseline, name) for name in names}
        self._limits: Mapping[str, Thresholds] = {name: thresholds(self.references[name], alpha) for name in names}
        self._states: dict[int, dict[str, BlockState]] = {}

    @property
    def weak(self) -> bool:
        """Whether there are too few reference blocks for the budget's promise."""
        return any(item.weak for item in self.references.values())

    def starts(self) -> Sequence[int]:
        """The starts of the blocks that are held, in order of time."""
        return sorted(self._states)

    def rows(self, start: int) -> int:
        """Rows counted in a block."""
        return max((state.rows for state in self._states.get(start, {}).values()), default=0)

    def count(self, rows: pa.Table) -> States:
        """Count rows of the prediction log; the states, as they are now, of the blocks that they are of."""
        touched: dict[int, dict[str, BlockState]] = {}
        for feature, blocks in count_table(rows, "at", self._baseline, fine=self._fine).items():
            for start, state in blocks.items():
                known = self._states.setdefault(start, {})
                known[feature] = merge([known[feature], state]) if feature in known else state
                touched.setdefault(start, {})[feature] = known[feature]
        return touched

    def judge(self, start: int, spoilt: Collection[int] = ()) -> list[Finding]:
        """The findings of all features when a block has closed; none where it has no row.

        Args:
            start: the block's start, UTC microseconds.
            spoilt: earlier blocks that are not looked back on.
        """
        if start not in self._states:
            return []
        recent = [at for at in self.starts() if at == start or (at < start and at not in spoilt)][-LOOK_BACK - 1 :]
        findings: list[Finding] = []
        for name, known in self.references.items():
            states = [(at, self._states[at][name]) for at in recent if name in self._states[at]]
            findings += judge(known, self._limits[name], states)
        return findings

    def reported(self, start: int) -> Mapping[str, tuple[Known, tuple[float, float]]]:
        """The well-known statistics of a block by feature, with its mean and standard deviation; they judge nothing."""
        states = self._states.get(start, {})
        return {
            name: (well_known(known, states[name]), moments(known.feature, states[name]))
            for name, known in self.references.items()
            if name in states
        }

    def forget(self, judged: int) -> None:
        """Let go of the blocks that no later judgement looks back on, when those up to `judged` are judged."""
        done = [at for at in self.starts() if at <= judged]
        for at in done[:-LOOK_BACK]:
            del self._states[at]
