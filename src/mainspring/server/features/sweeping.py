"""Sweeping a project's stores of what no feature view, vector index or model version reads any more."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Set

from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.errors import MainspringError
from mainspring.features.definitions import Reads, at_home, kept_reads
from mainspring.features.logs.log import SourceTable
from mainspring.features.logs.unused import Unused, drop_online, kept_online, online_subject, sweep, unused_of
from mainspring.features.vector_index.mark import forget_mark
from mainspring.features.view import View
from mainspring.plan.graph import Plan
from mainspring.ports.catalog import Catalog
from mainspring.ports.vector_store import VectorStore
from mainspring.server.features.vector_indexes import owner_of, shapes_of
from mainspring.training.versions import KIND

__all__ = ["reads_answering", "sweep_unused", "unused_in"]

_COLLECTION = "/vector_collection/"


def sweep_unused(
    services: Services,
    plan: Plan,
    views: Mapping[str, View],
    sources: Mapping[str, SourceTable],
    served: Mapping[str, Set[int]],
    actor: str,
) -> list[str]:
    """Note what is not used any more, and remove what was not for a day; in words, what was removed.

    Args:
        services: the project's ports.
        plan: the app's graph.
        views: its views, with their online numbers.
        sources: its sources.
        served: versions of models that answer in this process, by the model.
        actor: who does it.

    Raises:
        StoreError, ServiceError: a store does not answer; what was removed is on record.
    """
    now = now_us()
    done = sweep(
        services.catalog,
        _kept(services),
        _used(services, plan, views, served),
        lambda subject: drop_online(services.online, int(subject.rpartition("/")[2])),
        now_us=now,
        actor=actor,
    )
    if (collections := _collections(services)) is not None:
        vectors, there = collections
        done += sweep(
            services.catalog,
            there,
            _wanted(services, plan, views, sources, there),
            lambda subject: _drop_collection(services, vectors, subject.removeprefix(_COLLECTION)),
            now_us=now,
            actor=actor,
        )
    return [one.what for one in done]


def unused_in(
    services: Services, plan: Plan, views: Mapping[str, View], sources: Mapping[str, SourceTable]
) -> list[Unused]:
    """What is kept and nothing reads, as far as the stores answer; nothing is noted."""
    catalog, found = services.catalog, []
    # A store that does not answer is not asked twice; whoever uses it hears of that.
    with contextlib.suppress(MainspringError):
        found += unused_of(catalog, _kept(services), _used(services, plan, views, {}))
        if (collections := _collections(services)) is not None:
            there = collections[1]
            found += unused_of(catalog, there, _wanted(services, plan, views, sources, there))
    return found


def _kept(services: Services) -> dict[str, str]:
    """What is kept online; an app that never had rows online may have no store for them."""
    if not services.catalog.entities("online_view", "all", limit=1):
        return {}
    return kept_online(services.catalog, services.online)


# -- rows online ------------------------------------------------------------------------------------------------------


def _used(services: Services, plan: Plan, views: Mapping[str, View], served: Mapping[str, Set[int]]) -> frozenset[str]:
    """What the app reads, and what versions of its models read that have an alias or answer here."""
    numbers = {view.id for view in views.values() if view.online}
    catalog = services.catalog
    for node in plan.of_kind("model"):
        for reads in reads_answering(catalog, node.name, served.get(node.name, frozenset())):
            numbers |= {pick.view.id for pick in at_home(catalog, reads).selection.picks}
    return frozenset(map(online_subject, numbers))


def reads_answering(catalog: Catalog, model: str, served: Set[int] = frozenset()) -> Iterator[Reads]:
    """What the versions of a model read that have an alias, or answer in this process.

    Args:
        catalog: where it is on record.
        model: the model's name.
        served: versions that answer here.
    """
    named = [catalog.entity_by_id(alias.entity_id) for alias in catalog.aliases(KIND, model)]
    loaded = [catalog.entity(KIND, model, number) for number in served]
    digests = {str(one.spec.get("reads", "")) for one in (*named, *loaded) if one is not None and one.kind == KIND}
    for content in digests - {""}:
        reads = kept_reads(catalog, model, content)
        if reads is not None:
            yield reads


# -- vector indexes ---------------------------------------------------------------------------------------------------


def _collections(services: Services) -> tuple[VectorStore, dict[str, str]] | None:
    """The collections of this project's vector indexes, in words; None when it never had an index."""
    if not services.catalog.entities("vector_index", "owner", limit=1):
        return None
    name = re.compile(rf"vector_index-(.+)-{re.escape(owner_of(services))}-[0-9a-f]{{16}}-[0-9a-z]+", re.IGNORECASE)
    vectors = services.vectors
    found = [(collection, name.fullmatch(collection)) for collection in vectors.indexes()]
    return vectors, {_COLLECTION + one: f"vector index {match[1]}" for one, match in found if match is not None}


def _wanted(
    services: Services,
    plan: Plan,
    views: Mapping[str, View],
    sources: Mapping[str, SourceTable],
    there: Mapping[str, str],
) -> frozenset[str]:
    """The collections of indexes that the app has; an index itself sweeps those of its own old definitions."""
    prefixes = tuple(_COLLECTION + shape.prefix for shape in shapes_of(services, plan, views, sources).values())
    return frozenset(subject for subject in there if subject.startswith(prefixes))


def _drop_collection(services: Services, vectors: VectorStore, name: str) -> None:
    whose, digest, _ = name.rsplit("-", 2)
    forget_mark(services.online, f"{whose}-", digest)
    vectors.drop(name)
