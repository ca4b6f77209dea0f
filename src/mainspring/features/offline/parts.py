"""Questions to one view in parts, each answered by itself, on this machine or on others.

The parts are the pieces that windows are answered in on one machine: whole entities, or stretches of time of one that
asks more than its share. Each is asked with the moments of the whole spine in mind, or of its stretch, so that what is
added up is the same wherever it happens, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from mainspring.features.duck import connection, scan
from mainspring.features.offline.asof import SPINE, ask
from mainspring.features.offline.joined import Asked, Joined, join, placed, places_of
from mainspring.features.view import log_schema
from mainspring.features.windows.load import load_moments
from mainspring.features.windows.pieces import longest_window, pieces_of
from mainspring.lazy import lazy
from mainspring.ports.compute import Compute
from mainspring.ports.tables import Limits

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
else:
    np, pa = lazy("numpy"), lazy("pyarrow")

__all__ = ["Part", "answer_part", "join_apart"]

_KERNEL = b"kernel"
_STATE, _EVENT = "_state", "_event"


class Part(msgspec.Struct, frozen=True):
    """Some of the questions, with all that it takes to answer them.

    Attributes:
        asked: as of the whole, but for the rows; its log is `files`.
        files: the Parquet files of the log.
        limits: what the query may take of the machine.
        spine: ``rid`` from 0 on, ``k0`` .., ``t``.
    """

    asked: Asked
    files: tuple[str, ...]
    limits: Limits
    spine: pa.Table


def answer_part(part: Part) -> pa.Table:
    """The answers to a part's questions, in their order: the features, and the state and event time if wanted."""
    with connection(part.limits) as opened:
        opened.register(SPINE, part.spine)
        log = scan(opened, part.files, log_schema(part.asked.view), "empty_log")
        found = join(opened, msgspec.structs.replace(part.asked, log=log))
    columns = dict(found.columns)
    if found.state is not None and found.event is not None:
        columns |= {_STATE: found.state, _EVENT: found.event}
    return pa.table(columns).replace_schema_metadata({_KERNEL: found.kernel})


def join_apart(compute: Compute, asked: Asked, files: Sequence[str], limits: Limits, spine: pa.Table) -> Joined | None:
    """As `mainspring.features.offline.joined.join`, on other machines; None where the questions are one part.

    Args:
        compute: the machines, which have the files under the same paths.
        asked: what is asked; its log does not matter.
        files: the Parquet files of the view's log.
        limits: what the query of a part may take of its machine.
        spine: ``rid``, ``k0`` .., ``t``: all questions.
    """
    with connection(limits) as opened:
        opened.register(SPINE, spine)
        ask(opened, len(asked.view.keys))
        moments = load_moments(opened)
    pieces = pieces_of(moments, asked.held, longest_window(asked.features))
    if len(pieces) == 1:
        return None
    silent = np.setdiff1d(np.arange(asked.rows), moments.rid)  # they ask nothing, and are answered so by the first part
    rids = [np.sort(moments.rid[piece.start : piece.stop]) for piece in pieces]
    rids[0] = np.sort(np.concatenate([rids[0], silent]))
    spans = [piece.span for piece in pieces]
    asked = msgspec.structs.replace(asked, bounds=moments.bounds())
    found = list(compute.map(answer_part, _parts(asked, spans, files, limits, spine, rids)))
    places = places_of(np.concatenate(rids), asked.rows)
    columns = {
        name: placed(pa.chunked_array([chunk for one in found for chunk in one.column(name).chunks]), places)
        for name in found[0].column_names
    }
    kernels = {name for one in found for name in one.schema.metadata[_KERNEL].decode().split("+") if name}
    state, event = columns.pop(_STATE, None), columns.pop(_EVENT, None)
    return Joined(columns, state, event, "+".join(sorted(kernels)))


def _parts(
    asked: Asked,
    spans: Sequence[tuple[int, int] | None],
    files: Sequence[str],
    limits: Limits,
    spine: pa.Table,
    rids: Sequence[NDArray[np.int64]],
) -> Iterator[Part]:
    """The parts, one by one: the whole of them is the spine once more."""
    for mine, span in zip(rids, spans, strict=True):
        rows = spine.take(pa.array(mine)).set_column(0, "rid", pa.array(np.arange(len(mine))))
        of_part = msgspec.structs.replace(
            asked, rows=len(mine), log="", bounds=span or asked.bounds, stretch=span is not None
        )
        yield Part(of_part, tuple(files), limits, rows)
