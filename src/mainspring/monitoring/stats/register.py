"""Registration: the baseline of a reference table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import msgspec

from mainspring.declare.record import Field
from mainspring.errors import DataError
from mainspring.lazy import lazy
from mainspring.monitoring.stats.baseline import Baseline, FeatureBaseline, layout_digest
from mainspring.monitoring.stats.blocks import Blocks, split
from mainspring.monitoring.stats.columns import Encoded, FeatureKind, Tally, encoded, infer_kind, numbers
from mainspring.monitoring.stats.count import count, count_tally, invalid_words
from mainspring.monitoring.stats.grid import build_grid, cell_counts, quantile
from mainspring.monitoring.stats.hashes import hash_category
from mainspring.monitoring.stats.state import BlockState

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mainspring.metrics.arrays import Floats, Ints
    from mainspring.monitoring.stats.columns import Column
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

__all__ = ["COMMON", "KNOWN", "Watched", "count_table", "register"]

COMMON = 15
"""Categories with a cell of their own."""

KNOWN = 100_000
"""Categories that a baseline remembers; a column with more keeps its commonest."""


class Watched(msgspec.Struct, frozen=True):
    """A column to watch.

    Args:
        name: the column.
        kind: how; by its Arrow type when left out.
        rules: the `Field` of its declaration: what breaks it is counted as invalid.
    """

    name: str
    kind: FeatureKind | None = None
    rules: Field = msgspec.field(default_factory=Field)


def register(
    table: pa.Table, time: str, features: Iterable[Watched | str], block: Literal["hour", "day"] = "day"
) -> Baseline:
    """The baseline of a reference table.

    Args:
        table: the reference rows, in any order; one column at a time is copied, never the table.
        time: the column of the event time.
        features: what to watch.
        block: the length of the blocks that will be compared.

    Raises:
        DataError: MS-2404, a column of a type that cannot be watched; MS-2406, a row without a time; MS-2407, no such
            column.
    """
    blocks = split(_column(table, time), block)
    watched = [Watched(feature) if isinstance(feature, str) else feature for feature in features]
    return Baseline(
        block_us=blocks.size_us,
        starts=tuple(blocks.starts.tolist()),
        rows=tuple(blocks.rows.tolist()),
        features=tuple(_feature(table, feature, blocks) for feature in watched),
    )


def count_table(
    table: pa.Table, time: str, baseline: Baseline, *, fine: bool = False
) -> dict[str, dict[int, BlockState]]:
    """The state of every feature in every block of a table: by feature, then by block start in microseconds.

    Raises:
        DataError: as `register`.
    """
    blocks = split(_column(table, time), "day" if baseline.block_us >= 86_400_000_000 else "hour")
    starts, answer = blocks.starts.tolist(), {}
    for feature in baseline.features:
        column, layout = blocks.arranged(_column(table, feature.name)), feature.layout()
        if layout.numeric:
            states = [count(piece, layout, fine=fine) for piece in _pieces(column, blocks)]
        else:
            codes = encoded(column, layout.kind)
            wrong = invalid_words(codes.words, layout.rules)
            states = [count_tally(codes.words, codes.tally(*span), layout, wrong) for span in _spans(blocks)]
        answer[feature.name] = dict(zip(starts, states, strict=True))
    return answer


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise DataError(
            f'there is no column "{name}" to watch',
            code="MS-2407",
            why="the table has " + ", ".join(table.column_names[:20]),
            fix="name a column of the model's inputs or outputs",
        )
    return table.column(name)


def _feature(table: pa.Table, watched: Watched, blocks: Blocks) -> FeatureBaseline:
    column = _column(table, watched.name)
    # A number that must be one of a few values is a category that is written with digits.
    kind = watched.kind or ("category" if watched.rules.one_of else infer_kind(watched.name, column.type))
    column = blocks.arranged(column)
    if kind in ("number", "text"):
        return _number(watched, kind, column, blocks)
    return _category(watched, kind, encoded(column, kind), blocks)


def _number(watched: Watched, kind: FeatureKind, column: Column, blocks: Blocks) -> FeatureBaseline:
    ordered = np.sort(numbers(column).values)
    ordered = ordered[np.searchsorted(ordered, -np.inf, "right") : np.searchsorted(ordered, np.inf, "left")]
    rules = _rules(watched.rules)
    edges, coarse = build_grid(ordered)
    some = len(ordered) > 0
    feature = FeatureBaseline(
        name=watched.name,
        kind=kind,
        layout_digest="",
        edges=edges.astype("<f8").tobytes(),
        coarse=coarse.astype("<u2").tobytes(),
        fine=tuple(cell_counts(ordered, edges).tolist()),
        low=quantile(ordered, 0.001) if some else 0.0,
        high=quantile(ordered, 0.999) if some else 0.0,
        vmin=float(ordered[0]) if some else np.inf,
        vmax=float(ordered[-1]) if some else -np.inf,
        rules=rules,
    )
    feature = _identified(feature, sd=_clipped_sd(ordered, feature.low, feature.high))
    layout = feature.layout()
    states = [count(piece, layout) for piece in _pieces(column, blocks)]
    novel = _outside_others(states, list(_pieces(column, blocks)))
    return _with_blocks(feature, states, novel, [0] * len(states))


def _category(watched: Watched, kind: FeatureKind, codes: Encoded, blocks: Blocks) -> FeatureBaseline:
    words, tallies = codes.words, [codes.tally(*span) for span in _spans(blocks)]
    totals = np.zeros(len(words.hashes), dtype=np.int64)
    for tally in tallies:
        totals[tally.places] += tally.counts
    # Commonest first; equal counts by hash, so that the order of the rows does not matter.
    ranking = np.lexsort((words.hashes, -totals))
    ranking = ranking[totals[ranking] > 0][:KNOWN]
    known, common = words.hashes[ranking], words.hashes[ranking[:COMMON]]
    names = tuple(str(words.values[i]) for i in ranking[:COMMON].tolist()) if len(words.values) else ()
    feature = FeatureBaseline(
        name=watched.name,
        kind=kind,
        layout_digest="",
        known=np.sort(known).astype("<u8").tobytes(),
        common=common.astype("<u8").tobytes(),
        names=names,
        rules=_rules(watched.rules),
    )
    feature = _identified(feature)
    layout = feature.layout()
    wrong = invalid_words(words, layout.rules)
    states = [count_tally(words, tally, layout, wrong) for tally in tallies]
    novel, rest = _in_one_block(tallies, len(totals), ranking)
    return _with_blocks(feature, states, novel, rest)


def _identified(feature: FeatureBaseline, sd: float = 0.0) -> FeatureBaseline:
    scale = repr((feature.kind, feature.low, feature.high, feature.vmin, feature.vmax, feature.rules)).encode()
    digest = layout_digest(feature.edges, feature.coarse, feature.known, feature.common, scale)
    return msgspec.structs.replace(feature, layout_digest=digest, sd=sd)


def _with_blocks(
    feature: FeatureBaseline, states: Sequence[BlockState], novel: Sequence[int], rest: Sequence[int]
) -> FeatureBaseline:
    data = tuple(state.to_bytes() for state in states)
    return msgspec.structs.replace(feature, blocks=data, novel=tuple(novel), novel_rest=tuple(rest))


def _rules(rules: Field) -> tuple[float | None, float | None, tuple[int, ...], str | None]:
    allowed = tuple(sorted(hash_category(value) for value in rules.one_of))
    ge = None if rules.ge is None else float(rules.ge)
    return ge, None if rules.le is None else float(rules.le), allowed, rules.matches


def _clipped_sd(ordered: Floats, low: float, high: float) -> float:
    """Standard deviation of sorted values clipped to [low, high]."""
    if not high > low:
        return 0.0
    # Scaled first, as squares of values near 1e200 would overflow; the clipped tails are counts at the two ends.
    scale = max(abs(low), abs(high))
    first, last = np.searchsorted(ordered, low, "left"), np.searchsorted(ordered, high, "right")
    core = ordered[first:last] / scale
    ends = np.array([low, high]) / scale
    weights = np.array([first, len(ordered) - last])
    mean = (core.sum() + ends @ weights) / len(ordered)
    core -= mean
    return float(np.sqrt((core @ core + (ends - mean) ** 2 @ weights) / len(ordered))) * scale


def _outside_others(states: Sequence[BlockState], pieces: Sequence[Column]) -> list[int]:
    """Values of each block outside the range of all other blocks; only a block with the extreme can have any."""
    least = sorted(state.vmin for state in states)[:2]
    most = sorted((state.vmax for state in states), reverse=True)[:2]
    answer = []
    for state, piece in zip(states, pieces, strict=True):
        alone = len(states) < 2
        low = least[1] if not alone and state.vmin == least[0] else least[0]
        high = most[1] if not alone and state.vmax == most[0] else most[0]
        outside = 0
        if not alone and (state.vmin < low or state.vmax > high):
            values = numbers(piece).values
            values = values[np.isfinite(values)]
            outside = int(((values < low) | (values > high)).sum())
        answer.append(outside)
    return answer


def _in_one_block(tallies: Sequence[Tally], size: int, ranking: Ints) -> tuple[list[int], list[int]]:
    """Rows of each block whose category is in no other block or is not known; and those of them outside the common."""
    place = np.full(size, size, dtype=np.int64)
    place[ranking] = np.arange(len(ranking))
    seen = np.zeros(size, dtype=np.int64)
    for tally in tallies:
        seen[tally.places] += 1
    strange = place >= len(ranking)
    # Unknown categories are in the unseen cell already; only the known ones sit in the cell of the rest.
    rest = (place >= COMMON) & ~strange & (seen == 1) & (len(tallies) > 1)
    if len(tallies) > 1:
        strange |= seen == 1
    novel = [int(tally.counts[strange[tally.places]].sum()) for tally in tallies]
    return novel, [int(tally.counts[rest[tally.places]].sum()) for tally in tallies]


def _spans(blocks: Blocks) -> list[tuple[int, int]]:
    bounds = blocks.bounds.tolist()
    return list(pairwise(bounds))


def _pieces(column: Column, blocks: Blocks) -> Iterable[Column]:
    for start, stop in _spans(blocks):
        yield column.slice(start, stop - start)
