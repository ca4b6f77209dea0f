"""The colour of each box in the lineage graph: what an engine, an index, a route or an assistant lacks is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mainspring.choose.services import Services
from mainspring.console.health import health_of
from mainspring.console.state import ConsoleState
from mainspring.plan.graph import Node, Plan
from mainspring.ports.llm import Capabilities
from mainspring.ports.manifest import IndexVersion
from mainspring.server.answering.language import ModelRow


def row(name: str, state: Any, why: str = "") -> ModelRow:
    return ModelRow(name, "openai", "m", state, why, "", None, Capabilities())


NODES = (
    Node("llm", "chat", {}, ()),
    Node("llm", "backup", {}, ()),
    Node("route", "first", {}, ("/llm/chat", "/llm/backup")),
    Node("index", "library", {}, ()),
    Node("tool", "status", {}, ()),
    Node("assistant", "desk", {}, ("/route/first", "/index/library", "/tool/status")),
    Node("endpoint", "desk", {}, ("/assistant/desk",)),
)


@pytest.fixture
def services(tmp_path: Path):
    (tmp_path / "mainspring.toml").write_text('app = "none:app"\n')
    found = Services.of_project(tmp_path)
    yield found
    found.close()


def told(services: Services, models: Sequence[ModelRow], nodes: Sequence[Node] = NODES) -> dict[str, tuple[str, str]]:
    answering = cast(Any, SimpleNamespace(models=lambda: models))
    state = ConsoleState(services, lambda: Plan("app", tuple(nodes)), list, cast(Any, None), answering, lambda: 0)
    return health_of(state, nodes, ())


def version(number: int, state: Any) -> IndexVersion:
    return IndexVersion("library", number, state, str(number), {}, "e", 4, 7, {}, 1)


def test_what_lacks_an_index_and_an_engine_says_so(services: Services) -> None:
    found = told(services, [row("chat", "failed", "connection refused"), row("backup", "starting")])
    assert found["/llm/chat"] == ("bad", "connection refused")
    assert found["/llm/backup"] == ("warn", "the engine is starting")
    assert found["/route/first"] == ("bad", "/llm/chat, /llm/backup does not answer")
    assert found["/index/library"] == ("none", "never built")
    assert found["/assistant/desk"] == ("bad", "/route/first: /llm/chat, /llm/backup does not answer")
    assert found["/endpoint/desk"] == found["/assistant/desk"]


def test_a_route_answers_while_one_of_its_models_does(services: Services) -> None:
    found = told(services, [row("chat", "failed", "no memory"), row("backup", "ready")])
    assert found["/route/first"] == ("warn", "/llm/chat does not answer")
    assert told(services, [row("chat", "ready"), row("backup", "ready")])["/route/first"][0] == "ok"
    assert told(services, [])["/llm/chat"] == ("none", "not served here")


def test_an_index_is_being_built_then_answers_while_another_is(services: Services) -> None:
    manifest, ready = services.manifest, [row("chat", "ready"), row("backup", "ready")]
    manifest.add_version(version(1, "building"))
    assert told(services, ready)["/index/library"] == ("none", "version 1 is being built, and none answers yet")
    assert told(services, ready)["/assistant/desk"][0] == "warn"
    manifest.set_live("library", 1, was=None, by="me", at_us=2, reason="first")
    manifest.change_version(version(1, "live"), "building")
    assert told(services, ready)["/index/library"] == ("ok", "version 1 answers")
    assert told(services, ready)["/assistant/desk"] == ("ok", "its model and its indexes answer")
    manifest.add_version(version(2, "building"))
    assert told(services, ready)["/index/library"] == ("ok", "version 1 answers; version 2 is being built")
