"""Indexes as steps of the engine: built, judged by the app's own evaluations, and swapped in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from mainspring.choose.services import Services
from mainspring.config.settings import Settings
from mainspring.declare.declaration import name_of, origin_of
from mainspring.declare.documents import Index
from mainspring.declare.step import StepOptions
from mainspring.engine.context import current
from mainspring.engine.task import Task
from mainspring.rag.shape import IndexShape
from mainspring.rag.steps import IndexBuilt, build_index, folders_of, index_named, shape_of, still_there
from mainspring.rag.sync import Folder
from mainspring.server.answering.judging import judge_of

__all__ = ["index_built", "task_of_index"]

_MADE_WITH = ("embedder", "manifest", "parser", "vectors")


def task_of_index(index: Index, settings: Settings) -> Task:
    """The task ``index/NAME``; its result stands while no file has changed and its version answers."""
    folders = folders_of(index, settings)
    made_with = {
        port: {key: item.shown() for key, item in settings.section(port).items()}  # secrets stay references
        for port in _MADE_WITH
    }
    return Task(
        f"index/{name_of(index)}",
        index_built,
        {
            "shape": shape_of(index),
            "folders": [_plain(folder) for folder in folders],
            "made_with": made_with,
        },
        reaches=tuple(folder.access for folder in folders if callable(folder.access)),
        options=StepOptions(),
        title=f"index {name_of(index)}",
        origin=str(origin_of(index)),
        holds=still_there,
    )


def _plain(folder: Folder) -> dict[str, object]:
    """A folder as a parameter of a step: who may see its documents is code, and enters the key as such."""
    return {
        "name": folder.name,
        "folder": str(folder.folder),
        "include": list(folder.include),
        "exclude": list(folder.exclude),
        "access": "code" if callable(folder.access) else folder.access,
        "max_bytes": folder.max_bytes,
        "may_be_empty": folder.may_be_empty,
    }


def index_built(shape: IndexShape, folders: list[dict[str, object]], made_with: Mapping[str, object]) -> IndexBuilt:
    """Bring an index up to its documents. The parameters are what its cache key is of."""
    services = cast(Services, current().services)
    index = index_named(services, shape.name)
    done = build_index(services, index, f"run {current().run_id}", judge_of(services, index))
    current().log_metric(f"{shape.name}.documents", done.documents)
    current().log_metric(f"{shape.name}.chunks", done.chunks)
    return done
