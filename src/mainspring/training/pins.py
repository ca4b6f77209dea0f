"""What a training set is pinned by: definitions, versions of tables, spine, kernels and engine."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from mainspring.catalog.ids import new_id, now_us
from mainspring.errors import StoreError
from mainspring.features.logs.log import TableVersion
from mainspring.features.offline.history import ARITHMETIC
from mainspring.lazy import lazy
from mainspring.plan.encoding import digest, encode
from mainspring.ports.catalog import Catalog, Edge, Entity
from mainspring.training.sets import AT, KNOWN, Built, TrainingShape

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["TrainingSetSpec", "identity_of", "pin", "pinned"]

KIND = "training_set"


class TrainingSetSpec(msgspec.Struct, frozen=True):
    """Everything that decides a training set's rows, and what came of it.

    Attributes:
        identity: digest of definitions and table versions: it is known before the set is built.
        definitions: digest of each definition, by URL.
        tables: the version of each log that was read, by URL.
        spine: digest of the keys, moments and labels that the features were looked up for.
        kernels: by feature view, the kernel that answered its windows.
        engine: the version of Mainspring.
        arithmetic: `ARITHMETIC` (`mainspring.features.offline.history`) of whoever made it; 1 from before it was told.
        label: the label's column.
        columns: the model's columns and their Arrow types, in order.
        rows: how many.
        first_us: the moment of the oldest row.
        last_us: the moment of the newest row.
        cutoff_us: when the last of the labels was known.
        assumed: the share of each log's rows whose ingest time is not known, so that the event time stands for it.
    """

    identity: str
    definitions: dict[str, str]
    tables: dict[str, TableVersion]
    spine: str
    kernels: dict[str, str]
    engine: str
    label: str
    columns: dict[str, str]
    rows: int
    first_us: int
    last_us: int
    cutoff_us: int
    assumed: dict[str, float]
    arithmetic: int = 1


def identity_of(shape: TrainingShape, spine: TableVersion, views: Mapping[str, TableVersion]) -> str:
    """Digest of all that decides the rows, without building them; 40 hex digits."""
    tables = _tables(shape, spine, views)
    versions = [[url, table.table, table.version, table.digest] for url, table in tables.items()]
    roles = [shape.label, shape.known_at, list(shape.columns), list(shape.slices), _engine(), ARITHMETIC]
    return digest(encode([sorted(_definitions(shape).items()), versions, roles]))


def pin(
    catalog: Catalog, shape: TrainingShape, spine: TableVersion, views: Mapping[str, TableVersion], built: Built
) -> Entity:
    """Record a training set as a version of ``training_set/MODEL``; the same set is the same version."""
    table = built.frame.arrow()
    tables = _tables(shape, spine, views)
    spec = TrainingSetSpec(
        identity=identity_of(shape, spine, views),
        definitions=_definitions(shape),
        tables=tables,
        spine=built.spine,
        kernels=dict(built.kernels),
        engine=_engine(),
        label=shape.label,
        columns={name: str(table.column(name).type) for name in shape.columns},
        rows=len(table),
        first_us=table.column(AT)[0].cast(pa.int64()).as_py(),
        last_us=table.column(AT)[-1].cast(pa.int64()).as_py(),
        cutoff_us=pc.max(table.column(KNOWN).cast(pa.int64())).as_py(),
        assumed={url: item.assumed / item.rows for url, item in tables.items() if item.assumed},
        arithmetic=ARITHMETIC,
    )
    content = digest(encode(msgspec.json.encode(spec, order="sorted")))
    offered = Entity(new_id(), KIND, shape.model, 0, content, msgspec.to_builtins(spec), now_us())
    urls = [f"/{KIND}/{shape.model}", offered.id]
    return catalog.add_entity(offered, [Edge(url, "built_from", table) for url in urls for table in tables])


def pinned(catalog: Catalog, model: str, identity: str) -> Entity:
    """The recorded training set of that identity.

    Raises:
        StoreError: MS-4160, there is none.
    """
    for item in catalog.entities(KIND, model):
        if item.spec.get("identity") == identity:
            return item
    raise StoreError(
        f"the training set of model {model!r} is not in the catalog",
        code="MS-4160",
        why="its rows were kept, its description was not",
        fix=f"mainspring run {model} --force",
    )


def _tables(shape: TrainingShape, spine: TableVersion, views: Mapping[str, TableVersion]) -> dict[str, TableVersion]:
    return {f"/source/{shape.source.name}": spine} | {
        f"/feature_view/{name}": table for name, table in sorted(views.items())
    }


def _definitions(shape: TrainingShape) -> dict[str, str]:
    return (
        {f"/source/{shape.source.name}": shape.source.digest}
        | {f"/feature_view/{item.view.name}": item.view.version for item in shape.picks}
        | {f"/on_demand/{item.name}": digest(encode(item)) for item in shape.selection.calculations}
    )


def _engine() -> str:
    return importlib.metadata.version("mainspring")
