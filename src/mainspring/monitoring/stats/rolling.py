"""A second reference from recent blocks: the season that a training set was too short to show."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mainspring.errors import DataError
from mainspring.monitoring.stats.baseline import Baseline, FeatureBaseline
from mainspring.monitoring.stats.state import BlockState, merge

__all__ = ["rolled"]


def rolled(baseline: Baseline, recent: Mapping[str, Mapping[int, BlockState]]) -> Baseline:
    """The baseline with its blocks replaced by recent ones; cells, range and known categories stay.

    Args:
        baseline: the registered reference, on whose cells the recent blocks were counted.
        recent: by feature, then by block start in microseconds; the same nonempty blocks for every feature.

    Raises:
        DataError: MS-2402, counted on another grid; MS-2408, the features do not have the same blocks.
    """
    names = [feature.name for feature in baseline.features]
    starts = sorted(recent[names[0]]) if names and names[0] in recent else []
    if any(sorted(recent.get(name, {})) != starts for name in names):
        raise DataError(
            "a rolling reference needs the same blocks of every feature",
            code="MS-2408",
            why="a block of one feature has no counterpart in another",
            fix="leave out blocks that are not closed for every feature",
        )
    features = tuple(
        _feature(feature, [recent[feature.name][start] for start in starts]) for feature in baseline.features
    )
    rows = tuple(recent[names[0]][start].rows for start in starts) if names else ()
    return msgspec.structs.replace(baseline, starts=tuple(starts), rows=rows, features=features)


def _feature(feature: FeatureBaseline, states: list[BlockState]) -> FeatureBaseline:
    layout = feature.layout()
    whole = merge([BlockState(layout.digest, (0,) * layout.cells, (0,) * len(feature.fine)), *states])
    return msgspec.structs.replace(
        feature,
        fine=whole.fine,
        blocks=tuple(state.to_bytes() for state in states),
        novel=tuple(state.n_unseen for state in states),
        novel_rest=(0,) * len(states),
    )
