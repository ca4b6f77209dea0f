"""Champions that were trained on other definitions than the app's: each reads its own, which go on being brought up.

While a view is defined anew and no better model was promoted yet, two versions of it are kept side by side: the app's,
for the model to come, and the champion's, for the answers of today.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from mainspring.choose.services import Services
from mainspring.declare.declaration import spec_of
from mainspring.declare.model import ModelDeclaration
from mainspring.engine.task import Output, Task
from mainspring.features.definitions import Reads, Unfollowed, at_home, follow_views, kept_reads, reads_of
from mainspring.features.logs.log import SourceTable, newest
from mainspring.features.logs.project import update_view
from mainspring.features.online.materialise import materialise
from mainspring.features.steps import aggregate_rows, still_there
from mainspring.features.view import View
from mainspring.plan.graph import Node, Plan
from mainspring.ports.catalog import Entity
from mainspring.training.versions import champion_of

__all__ = ["Own", "bring", "followed_by_champions", "own_of", "task_of_followed"]


class Own(msgspec.Struct, frozen=True):
    """What a model version reads, where that is not what the app declares.

    Attributes:
        reads: with the numbers under which the views are kept online.
        followed: the views that have to be brought up to date for it.
        lost: what cannot be carried out any more, so that its answers are of what was made before, or by the new code.
    """

    reads: Reads
    followed: tuple[View, ...]
    lost: tuple[Unfollowed, ...]


def own_of(
    services: Services, node: Node, version: Entity, views: Mapping[str, View], sources: Mapping[str, SourceTable]
) -> Own | None:
    """What a version of a declared model reads; None when that is what the app declares, or is not on record.

    Args:
        services: the project's ports.
        node: the model's.
        version: of the model.
        views: the app's views by name.
        sources: the app's sources by name.
    """
    content = str(version.spec.get("reads", ""))
    declared = reads_of(spec_of(cast(ModelDeclaration, node.declaration)).inputs, views)
    if not content or content == declared.digest:
        return None
    kept = kept_reads(services.catalog, node.name, content)
    if kept is None:
        return None
    code = {one.name: one.code for one in declared.selection.calculations}
    home = at_home(services.catalog, kept)
    return Own(home, *follow_views(home, views, sources, code))


def followed_by_champions(
    services: Services, plan: Plan, views: Mapping[str, View], sources: Mapping[str, SourceTable]
) -> dict[str, View]:
    """The views of other definitions that champions read, by name and the beginning of their version."""
    found: dict[str, View] = {}
    for node in plan.of_kind("model"):
        champion, _ = champion_of(services.catalog, node.name)
        own = None if champion is None else own_of(services, node, champion, views, sources)
        found |= {_called(view): view for view in (own.followed if own is not None else ())}
    return found


def task_of_followed(name: str, view: View, source: SourceTable, origin: str) -> Task:
    """The task that brings the log of a followed view up to its source's."""
    return Task(
        f"feature_view/{name}",
        aggregate_rows,
        {"view": view, "source": source.unchecked},
        {"at": Output(f"source/{view.sources[0]}")},
        title=f"feature view {name}",
        origin=origin,
        holds=still_there,
    )


def bring(services: Services, view: View, source: SourceTable, now_us: int) -> None:
    """Bring a followed view's log and its online rows up to what its source's log has."""
    at = newest(services.tables, source.log)
    if at is None:
        return
    version = update_view(services.tables, view, source, at).version
    if view.online:
        materialise(view, services.tables, services.online, version.version, now_us=now_us, source=source)


def _called(view: View) -> str:
    return f"{view.name}@{view.version[:8]}"
