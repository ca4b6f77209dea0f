"""The step of a monitor: the baseline of a model's inputs and scores, versioned with the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from mainspring.choose.services import Services
from mainspring.declare.artifact import File
from mainspring.declare.data import Column
from mainspring.declare.declaration import name_of, origin_of, spec_of
from mainspring.declare.frame import Frame
from mainspring.declare.model import Monitor
from mainspring.declare.record import Field
from mainspring.engine.context import current
from mainspring.engine.task import Output, Task
from mainspring.features.logs.log import TableVersion
from mainspring.features.view import View
from mainspring.lazy import lazy
from mainspring.monitoring.feeds import Behind, arrivals, feed_of, sources_behind
from mainspring.monitoring.stats.baseline import Baseline, Feed
from mainspring.monitoring.stats.columns import whole_numbers
from mainspring.monitoring.stats.register import Watched, register
from mainspring.monitoring.stats.segments import register_segments
from mainspring.ports.runtime import read_card

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np, pa = lazy("numpy"), lazy("pyarrow")

__all__ = ["SCORE", "baseline_file", "tasks_of_monitor"]

SCORE = "score"
"""The model's score, watched like an input."""

_AT, _KNOWN = "_at", "_known"
_SOURCE = "source_"
_LABELLED = 0.99


def tasks_of_monitor(monitor: Monitor, views: Mapping[str, View]) -> tuple[Task, ...]:
    """The task ``baseline/NAME`` of a declared monitor; it takes the model's training set, folder and segments."""
    spec = spec_of(monitor)
    model = name_of(spec.model)
    segments = [column.name for column in spec.segments]
    apart = {"apart": Output(f"segments/{model}")} if segments else {}
    behind = sources_behind(spec_of(spec.model))
    logs = {f"{_SOURCE}{found.source.name}": Output(f"source/{found.source.name}") for found in behind}
    rules = {item.name: item.field.rules for item in spec_of(spec.model).inputs if isinstance(item, Column)}
    return (
        Task(
            f"baseline/{name_of(monitor)}",
            baseline,
            {
                "block": spec.block,
                "watch": list(spec.watch),
                "rules": rules,
                "segments": segments,
                "behind": list(behind),
            },
            {"frame": Output(f"training_set/{model}"), "folder": Output(f"model/{model}"), **apart, **logs},
            origin=str(origin_of(monitor)),
        ),
    )


def baseline(
    block: Literal["hour", "day"],
    watch: list[str],
    rules: dict[str, Field],
    segments: list[str],
    behind: list[Behind],
    frame: Frame,
    folder: File,
    apart: Frame | None = None,
    **logs: TableVersion,
) -> File:
    """The baseline as a file: inputs and score over all rows of the training set and by segment, and the sources."""
    services = cast(Services, current().services)
    card = read_card(folder.path)
    table = frame.arrow()
    matrix = np.ascontiguousarray(frame[list(card.columns)].numpy().reshape(len(frame), -1), dtype=card.dtype)
    scores = np.ascontiguousarray(services.own_predictor(folder.path).scores(matrix), np.float64)
    table = table.append_column(SCORE, pa.Array.from_buffers(pa.float64(), len(scores), [None, pa.py_buffer(scores)]))
    names = [name for name in (*card.columns, SCORE) if not watch or name in watch or name == SCORE]
    watched = [Watched(name, rules=rules.get(name, Field())) for name in names]
    found = register(table, _AT, watched, block)
    if apart is not None:
        columns = {name: apart.arrow().column(name) for name in segments}
        found = register_segments(found, table, _AT, watched, columns, block)
    feeds = tuple(_feed(services, source, logs[f"{_SOURCE}{source.source.name}"], found) for source in behind)
    found = msgspec.structs.replace(found, horizon_us=_horizon(frame), feeds=feeds if found.starts else ())
    path = Path(current().work_dir) / "baseline.bin"
    path.write_bytes(found.to_bytes())
    return File(path)


def _feed(services: Services, behind: Behind, log: TableVersion, reference: Baseline) -> Feed:
    """What a source brought in the reference's time."""
    at = msgspec.convert(log, TableVersion)
    first, stop = (reference.starts[0], reference.starts[-1] + reference.block_us) if reference.starts else (0, 0)
    times = arrivals(services.tables, behind.source, first, stop, at.version)
    return feed_of(times, behind.source.name, behind.every_us, reference.block_us, stop)


def _horizon(frame: Frame) -> int:
    """How long it took until 99 % of the labels were known, in microseconds."""
    known, at = (whole_numbers(frame.arrow().column(name)) for name in (_KNOWN, _AT))
    return int(np.quantile(np.maximum(known - at, 0), _LABELLED)) if len(at) else 0


def baseline_file(data: bytes) -> Baseline:
    """A stored baseline."""
    return Baseline.from_bytes(data)
