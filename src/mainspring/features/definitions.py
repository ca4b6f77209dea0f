"""Definitions on record: what a model version reads, so that it is served as it was trained when the app moves on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import msgspec

from mainspring.catalog.ids import new_id, now_us
from mainspring.declare.data import Column
from mainspring.declare.model import Input
from mainspring.declare.record import ColumnType
from mainspring.features.logs.log import SourceTable
from mainspring.features.online.materialise import online_id
from mainspring.features.selection import Selection, selection_of
from mainspring.features.view import Pick, View, aggregates_log
from mainspring.plan.encoding import digest, encode
from mainspring.ports.catalog import Catalog, Entity

__all__ = ["ReadColumn", "Reads", "Unfollowed", "at_home", "follow_views", "keep_reads", "kept_reads", "reads_of"]

_KIND = "reads"


class ReadColumn(msgspec.Struct, frozen=True):
    """A column of a model.

    Attributes:
        name: its name.
        type: its type.
        place: its place among the outputs of the selection, or None when the request carries it.
    """

    name: str
    type: ColumnType
    place: int | None


class Reads(msgspec.Struct, frozen=True):
    """What a model reads.

    Attributes:
        selection: what is looked up and computed.
        columns: the model's columns, in order.
    """

    selection: Selection
    columns: tuple[ReadColumn, ...]

    @property
    def digest(self) -> str:
        """The same for the same definitions, 40 hex digits."""
        return digest(encode(msgspec.json.encode(_bare(self), order="sorted")))


class Unfollowed(msgspec.Struct, frozen=True):
    """A definition that cannot be carried out any more.

    Attributes:
        url: whose it is: ``/feature_view/conditions`` or ``/on_demand/pressure``.
        why: what has changed.
    """

    url: str
    why: str


def reads_of(inputs: Sequence[Input], views: Mapping[str, View]) -> Reads:
    """What declared inputs read.

    Args:
        inputs: as `App.model` takes them.
        views: the views by name.
    """
    selection = selection_of(inputs, views)
    columns, outputs = [], iter(enumerate(selection.outputs))
    for item in inputs:
        if isinstance(item, Column):
            columns.append(ReadColumn(item.name, item.field.type, None))
            continue
        for _ in selection_of([item], views).outputs:
            place, output = next(outputs)
            columns.append(ReadColumn(output.name, output.type, place))
    return Reads(selection, tuple(columns))


def keep_reads(catalog: Catalog, model: str, reads: Reads) -> str:
    """Record what a model reads; its digest."""
    content = reads.digest
    catalog.add_entity(Entity(new_id(), _KIND, model, 0, content, msgspec.to_builtins(_bare(reads)), now_us()))
    return content


def kept_reads(catalog: Catalog, model: str, content: str) -> Reads | None:
    """What is on record under a digest, or None."""
    for entity in catalog.entities(_KIND, model, limit=1_000_000):
        if entity.digest == content:
            return msgspec.convert(entity.spec, Reads)
    return None


def at_home(catalog: Catalog, reads: Reads) -> Reads:
    """With the numbers under which the views are kept online."""
    picks = tuple(
        Pick(msgspec.structs.replace(pick.view, id=online_id(catalog, pick.view)), pick.features)
        for pick in reads.selection.picks
    )
    return Reads(msgspec.structs.replace(reads.selection, picks=picks), reads.columns)


def follow_views(
    reads: Reads, views: Mapping[str, View], sources: Mapping[str, SourceTable], code: Mapping[str, str]
) -> tuple[tuple[View, ...], tuple[Unfollowed, ...]]:
    """Which views of another definition have to be brought up to date for these reads, and what cannot be any more.

    A view of declared aggregates can be, as long as its source and its checks are the same. A function that is not the
    app's any more cannot be carried out: what it made before stays.

    Args:
        reads: of a model version.
        views: the app's views by name.
        sources: the app's sources by name.
        code: the digest of each of the app's on-demand functions by name.
    """
    followed, lost = [], []
    for view in dict.fromkeys(pick.view for pick in reads.selection.picks):
        now = views.get(view.name)
        if now is not None and now.version == view.version:
            continue
        url = f"/feature_view/{view.name}"
        source = sources.get(view.sources[0]) if len(view.sources) == 1 and not view.decorated else None
        if view.decorated:
            same = now is not None and now.log == view.log
            lost += [] if same else [Unfollowed(url, "its function is another one now")]
        elif source is None or aggregates_log(view, source.digest, () if now is None else now.checks) != view.log:
            lost.append(Unfollowed(url, f"source {view.sources[0]!r} is declared otherwise now, or its checks are"))
        else:
            followed.append(view if now is None else msgspec.structs.replace(view, checks=now.checks))
    for calculation in reads.selection.calculations:
        if code.get(calculation.name) != calculation.code:
            lost.append(Unfollowed(f"/on_demand/{calculation.name}", "its function is another one now"))
    return tuple(followed), tuple(lost)


def _bare(reads: Reads) -> Reads:
    """Without what is no part of what a model reads: numbers, checks, and how often something is brought up to date."""
    picks = tuple(
        Pick(msgspec.structs.replace(pick.view, id=0, checks=(), every_us=None), pick.features)
        for pick in reads.selection.picks
    )
    calculations = tuple(dataclasses.replace(one, origin="") for one in reads.selection.calculations)
    return Reads(msgspec.structs.replace(reads.selection, picks=picks, calculations=calculations), reads.columns)
