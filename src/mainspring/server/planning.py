"""The plan of the loaded app, against settings and against what was applied last."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import msgspec

from mainspring.catalog.ids import new_id
from mainspring.choose.services import Services
from mainspring.config.settings import Settings
from mainspring.declare.app import App
from mainspring.errors import ConfigError
from mainspring.features.decorated.infer import infer
from mainspring.plan.build import build_plan
from mainspring.plan.diff import Change, NodeRecord, difference, recorded
from mainspring.plan.encoding import digest, encode
from mainspring.plan.graph import Plan
from mainspring.ports.catalog import Alias, Entity, Event

__all__ = ["changes_of", "needed_ports", "plan_of", "remember", "sources_have_places"]


def plan_of(app: App) -> Plan:
    """The typed graph of a loaded app; decorated views are tried on empty tables to find their columns."""
    return build_plan(app, infer)


def needed_ports(plan: Plan) -> tuple[str, ...]:
    """The ports that a plan needs."""
    kinds = {node.kind for node in plan.nodes}
    ports = ["catalog", "objects"]
    if kinds & {"source", "feature_view"}:
        ports.append("tables")
    if "model" in kinds:
        ports += ["converter", "runtime"]
    if (
        plan.of_kind("endpoint", over="model")
        or plan.of_kind("endpoint", over="composition")
        or "feature_service" in kinds
    ):
        ports.append("online")
    if "documents" in kinds:
        ports.append("parser")
    if "vector_index" in kinds:
        ports += [port for port in ("online", "vectors") if port not in ports]
    if "index" in kinds:
        ports += [port for port in ("manifest", "embedder", "vectors") if port not in ports]
    if any("alike" in node.spec for node in plan.of_kind("route")) and "embedder" not in ports:
        ports.append("embedder")
    if any(node.spec["rerank"] for node in plan.of_kind("index")):
        ports.append("reranker")
    return tuple(ports)


def sources_have_places(plan: Plan, settings: Settings) -> None:
    """Every source says where it is.

    Raises:
        ConfigError: MS-3015.
    """
    for node in plan.of_kind("source"):
        if settings.text(f"sources.{node.name}.path") is None and settings.text(f"sources.{node.name}.url") is None:
            raise ConfigError(
                f"source {node.name!r} has no place in profile {settings.profile!r}",
                code="MS-3015",
                why="neither a path nor a url is set for it",
                origin=str(node.origin),
                fix=_misspelt(node.name, plan, settings)
                or f'add [sources.{node.name}] with path = "data/{node.name}.parquet" to mainspring.toml',
            )


def _misspelt(source: str, plan: Plan, settings: Settings) -> str:
    """The remedy where the settings have a place for a source that the app has not, and that is called nearly so."""
    named = {key.partition(".")[0] for key in settings.section("sources")}
    near = difflib.get_close_matches(source, named - {node.name for node in plan.of_kind("source")}, n=1)
    if not near:
        return ""
    found = settings.section(f"sources.{near[0]}")
    return f"write [sources.{source}] for [sources.{near[0]}] at {next(iter(found.values())).origin}"


def changes_of(services: Services, plan: Plan) -> tuple[Change, ...]:
    """What changes from the plan that was applied last."""
    alias = services.catalog.alias("app", plan.app, "applied")
    last = None if alias is None else services.catalog.entity_by_id(alias.entity_id)
    old = () if last is None else msgspec.convert(last.spec["nodes"], tuple[NodeRecord, ...])
    return difference(old, plan)


def remember(services: Services, plan: Plan, now: int) -> None:
    """Record a plan as the applied one."""
    nodes: Sequence[object] = [msgspec.to_builtins(record) for record in recorded(plan)]
    content = digest(encode([node.fingerprint for node in plan.nodes]))
    entity = Entity(new_id(), "app", plan.app, 0, content, {"nodes": nodes}, now)
    stored = services.catalog.add_entity(entity)
    applied = services.catalog.alias("app", plan.app, "applied")
    if applied is not None and applied.entity_id == stored.id:
        return
    moved = Alias("app", plan.app, "applied", stored.id, 0 if applied is None else applied.rev)
    services.catalog.move_alias(
        moved, Event(now, "mainspring", "plan.applied", f"/app/{plan.app}", {"version": stored.version})
    )
