"""What can be known before anything runs: wiring, adapters, their settings, files, secrets, listeners."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import cast

import orjson

from mainspring.choose.services import Services, port_settings
from mainspring.config.settings import Settings, reveal
from mainspring.declare.data import FeatureView, Source
from mainspring.declare.declaration import kind_of, name_of, spec_of
from mainspring.declare.model import Schedule
from mainspring.declare.record import FieldSpec
from mainspring.declare.step import Pipeline, Step, Unknown
from mainspring.engine.pipeline import graph_of
from mainspring.engine.secrets import declared_secret
from mainspring.engine.task import Task
from mainspring.errors import DeclarationError
from mainspring.features.decorated.infer import check_returns
from mainspring.features.logs.log import source_of
from mainspring.features.sources.place import outside_of
from mainspring.features.steps import files_of
from mainspring.llm.sizing import sizings
from mainspring.plan.graph import Node, Plan
from mainspring.server.answering.budgets import budgets_of
from mainspring.server.answering.outside import outside_servers
from mainspring.server.http.cors import cors_of
from mainspring.server.http.listening import api_keys, exposed_pages, management_keys, served_protocols
from mainspring.server.http.rates import rates_of
from mainspring.server.http.resource import resource_of
from mainspring.server.http.tokens import tokens_of
from mainspring.server.loop import rows_of
from mainspring.server.planning import needed_ports, sources_have_places

__all__ = ["check_wiring", "preflight"]


def preflight(services: Services, plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Refuse what ``apply`` or ``serve`` would refuse of the settings; nothing is opened, written or called.

    Args:
        services: the project's ports, none of which is opened.
        plan: the app's graph.

    Returns:
        The adapters that serve each port which the plan needs.

    Raises:
        ConfigError: MS-3007, MS-3010 to MS-3015, MS-3020 to MS-3022, MS-3040, MS-3041, MS-3065 to MS-3067,
            MS-3085 to MS-3088, MS-3170, MS-3171.
        DataError: MS-2112, a source's path leads to no file.
    """
    settings = services.settings
    sources_have_places(plan, settings)
    for node in plan.of_kind("source"):
        if outside_of(source_of(cast(Source, node.declaration)), settings) is None:
            files_of(node.name, settings)
    chosen = {port: tuple(port_settings(port, settings)) for port in needed_ports(plan)}
    for port in ("budgets", "compute"):
        if settings.section(port):
            chosen[port] = tuple(port_settings(port, settings))
    for node in plan.of_kind("llm"):
        chosen[f"llms.{node.name}"] = tuple(port_settings("llm", settings, f"llms.{node.name}"))
    _secrets_are_there(settings)
    outside_servers(plan, settings)
    sizings(settings, [node.name for node in plan.of_kind("llm")])
    for node in plan.of_kind("step"):
        for secret in spec_of(cast("Step[..., object]", node.declaration)).options.secrets:
            declared_secret(secret, services, str(node.origin))
    _listeners_can_open(settings)
    budgets_of(settings, plan)
    return chosen


def _secrets_are_there(settings: Settings) -> None:
    for setting in settings.values.values():
        for reference in setting.references():
            reveal(reference, settings.project)


def _listeners_can_open(settings: Settings) -> None:
    api_keys(settings)
    tokens_of(settings)
    resource_of(settings)
    rates_of(settings)
    cors_of(settings)
    served_protocols(settings)
    if settings.flag("management.enabled"):
        exposed_pages(settings)
        management_keys(settings)


def check_wiring(plan: Plan) -> None:
    """Wire every pipeline, also as its schedules will, and try every view on empty tables; nothing is run.

    A pipeline's parameters without a default are unknown until somebody runs it: a body that looks at one is wired
    as far as that.

    Raises:
        DeclarationError: MS-1020 to MS-1023, MS-1040, MS-1105, MS-2039 to MS-2041, as wiring raises.
        DataError: MS-2119, a view does not return what ``returns=`` promises.
    """
    for node in plan.of_kind("feature_view"):
        view = cast(FeatureView, node.declaration)
        if spec_of(view).function is not None and spec_of(view).returns:
            check_returns(view, {url.rpartition("/")[2]: _columns(plan, url) for url in node.inputs})
    for node in plan.of_kind("pipeline"):
        pipeline = cast("Pipeline[..., object]", node.declaration)
        open_ones = inspect.signature(spec_of(pipeline).function).parameters.values()
        graph_of(pipeline, {item.name: Unknown() for item in open_ones if _needed(item)}, _rows)
    for node in plan.of_kind("schedule"):
        spec = spec_of(cast(Schedule, node.declaration))
        if isinstance(spec.target, (Pipeline, Step)):
            graph_of(spec.target, _as_run(node, spec.arguments), _rows)


def _as_run(schedule: Node, arguments: Mapping[str, object]) -> dict[str, object]:
    """A schedule's arguments, which go to its run as JSON."""
    try:
        orjson.dumps(list(arguments.values()))
    except TypeError as error:
        raise DeclarationError(
            f"schedule {schedule.name!r} has an argument that cannot be handed to a run",
            code="MS-1105",
            why=str(error),
            origin=str(schedule.origin),
            fix="give it numbers, texts, truths, moments, and lists and mappings of them",
        ) from error
    return dict(arguments)


def _needed(parameter: inspect.Parameter) -> bool:
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return parameter.default is inspect.Parameter.empty and parameter.kind in plain


def _columns(plan: Plan, url: str) -> tuple[FieldSpec, ...]:
    node = plan.node(url)
    return () if node is None else node.fields


def _rows(declaration: Source | FeatureView) -> Task:
    """A stand-in for the task that reads the rows."""
    return Task(f"rows/{name_of(declaration)}", rows_of, {"log": kind_of(declaration).value})
