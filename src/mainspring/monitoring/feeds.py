"""The sources behind a model's features: how many rows they bring and how late, against their own reference.

A row that comes twice, as a correction of its event, is one row. A source that fails is the cause of what its features
then show: its own alarm says so, and theirs are muted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from mainspring.declare.data import Feature, FeatureView, Source
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.model import ModelSpec
from mainspring.features.logs.log import SourceTable, read_log, source_of, standing
from mainspring.features.view import DELETED, EVENT, RETRACTS, SEQ
from mainspring.lazy import lazy
from mainspring.monitoring.stats.baseline import Baseline, Feed
from mainspring.monitoring.stats.decide import WINDOWS, Finding
from mainspring.monitoring.stats.feed import Volume, freshness_limit, judge_volume, stale, volume
from mainspring.plan.checks import features_beneath
from mainspring.ports.tables import TableStore

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mainspring.metrics.arrays import Ints
else:
    np, pa = lazy("numpy"), lazy("pyarrow")

__all__ = ["Arrivals", "Behind", "FeedJudge", "arrivals", "feed_of", "sources_behind", "url_of_source"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Arrivals = Callable[[str, int, int], "Ints"]
"""The event times (UTC microseconds, sorted) of a source's rows: its name, the span's start, its stop (left out)."""


class Behind(msgspec.Struct, frozen=True):
    """A source behind a model's features.

    Attributes:
        source: the source.
        every_us: how often it is read, in microseconds, or None.
    """

    source: SourceTable
    every_us: int | None


def url_of_source(name: str) -> str:
    """What a source is called in findings and alarms: ``source/weather``; no feature has such a name."""
    return f"source/{name}"


def sources_behind(spec: ModelSpec) -> tuple[Behind, ...]:
    """The sources that the feature views among a model's inputs are made from, through other views too, by name."""
    found: dict[str, Source] = {}

    def walk(item: object) -> None:
        if isinstance(item, Source):
            found[name_of(item)] = item
        elif isinstance(item, Feature):
            walk(item.view)
        elif isinstance(item, FeatureView):
            for above in spec_of(item).sources:
                walk(above)

    for item in spec.inputs:
        for used in features_beneath(item):
            walk(used)
    return tuple(Behind(source_of(found[name]), spec_of(found[name]).every_us) for name in sorted(found))


def arrivals(tables: TableStore, source: SourceTable, start: int, stop: int, version: int | None = None) -> Ints:
    """The event times of a source's rows in a span, sorted; of one event's versions the earliest (n,).

    Args:
        tables: where its log is.
        source: the source.
        start: the span's start, UTC microseconds, inclusive.
        stop: its end, exclusive.
        version: of the log; the newest when left out.
    """
    if tables.version(source.log) is None:
        return np.empty(0, np.int64)
    where = ((EVENT, ">=", _moment(start)), (EVENT, "<", _moment(stop)))
    columns = [EVENT, DELETED, SEQ, RETRACTS, *([source.id] if source.id else [])]
    rows = standing(read_log(tables, source.log, version, columns, where))  # what takes a row away bears its time
    rows = rows.filter(_not(rows.column(DELETED))).sort_by(EVENT)
    times: Ints = np.asarray(rows.column(EVENT).cast(pa.int64()), dtype=np.int64)
    if source.id and len(times):
        codes = rows.column(source.id).combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
        times = np.sort(times[np.unique(codes, return_index=True)[1]])
    return times


def feed_of(times: Ints, name: str, every_us: int | None, block_us: int, stop: int | None = None) -> Feed:
    """The reference of a source from the sorted event times (n,) of its rows.

    How long it may be silent comes from the longest silence that ends in each block: nights and weekends are usual. A
    silence of whole blocks that the reference's end cuts off, longer than those, says that nobody knows: a register
    whose rows seldom change is not late.

    Args:
        times: UTC microseconds, sorted.
        name: the source's.
        every_us: how often it is read, in microseconds, or None.
        block_us: length of a block in microseconds.
        stop: the reference's end, UTC microseconds, exclusive; that of the last block with rows when left out.
    """
    starts, rows = np.unique(times // block_us * block_us, return_counts=True)
    silences = np.diff(times)
    longest: Ints = np.zeros(len(starts), dtype=np.int64)
    np.maximum.at(longest, np.searchsorted(starts, times[1:] // block_us * block_us), silences)
    limit = int(freshness_limit(every_us or 0, longest[longest > 0]))
    if len(times) and stop is not None and stop > starts[-1] + block_us:
        starts, rows = np.append(starts, (stop - 1) // block_us * block_us), np.append(rows, 0)
        limit = 0 if stop - times[-1] > limit else limit
    return Feed(source=name, starts=tuple(starts.tolist()), rows=tuple(rows.tolist()), silence_us=limit)


class FeedJudge:
    """Judges the sources of a baseline whenever a block has closed.

    Args:
        baseline: with the reference of each source.
        alpha: the chance of a false alarm of one evaluation.
        came: what each source has brought.
    """

    def __init__(self, baseline: Baseline, alpha: float, came: Arrivals) -> None:
        self._size = baseline.block_us
        self._alpha = alpha
        self._came = came
        self._feeds: Sequence[Feed] = baseline.feeds
        self._usual: Mapping[str, Volume] = {
            feed.source: volume(feed.starts, feed.rows, baseline.block_us) for feed in baseline.feeds
        }

    def judge(self, start: int, spoilt: Collection[int] = ()) -> list[Finding]:
        """The findings on volume and freshness of every source.

        Args:
            start: the start of the block that has closed, UTC microseconds.
            spoilt: earlier blocks in which a source failed: one that is back fails no more.
        """
        return [finding for feed in self._feeds for finding in self._of(feed, start, spoilt)]

    def _of(self, feed: Feed, start: int, spoilt: Collection[int]) -> list[Finding]:
        size, usual, name = self._size, self._usual[feed.source], url_of_source(feed.source)
        first, end = start - (max(WINDOWS) - 1) * size, start + size
        times = self._came(feed.source, first, end)
        counts = np.bincount((times - first) // size, minlength=max(WINDOWS)).tolist()
        blocks = [(first + place * size, rows) for place, rows in enumerate(counts)]
        recent = [(at, rows) for at, rows in blocks if at == start or at not in spoilt]
        found = [replace(finding, feature=name) for finding in judge_volume(usual, self._alpha, recent)]
        if feed.silence_us:
            latest = int(times[-1]) if len(times) else None
            age = end - (first if latest is None else latest)
            late = stale(end, latest, feed.silence_us)
            seconds = (age / 1e6, feed.silence_us / 1e6, age / 1e6)
            nan = float("nan")
            found.append(Finding(name, "freshness", 1, *seconds, 0.0, nan, "alarm" if late else "ok", usual.weak))
        return found


def _not(column: pa.ChunkedArray) -> pa.BooleanArray:
    dead = np.asarray(column.fill_null(False), dtype=bool)
    bits = np.packbits(~dead, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(dead), [None, pa.py_buffer(bits)])


def _moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=max(us, 0))
