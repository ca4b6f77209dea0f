"""A project as its own tests see it: its graph, built and asked in the process of the test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import cast

import msgspec

from mainspring.assistants.evaluate import Answer as Reply
from mainspring.assistants.evaluate import answer_of_run
from mainspring.assistants.events import fold
from mainspring.assistants.service import Asked
from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.config.project import load_app
from mainspring.declare.data import did_you_mean
from mainspring.declare.documents import Index
from mainspring.declare.identity import Identity
from mainspring.engine.runs.report import RunReport
from mainspring.errors import UsageError
from mainspring.features.steps import sources_of
from mainspring.features.vector_index.search import NearestAnswer, NearestRequest, VectorIndexSearcher
from mainspring.plan.graph import Node, Plan
from mainspring.ports.llm import Message
from mainspring.rag.search import SearchAnswer, SearchRequest
from mainspring.rag.steps import searcher_of, shape_of
from mainspring.server.answering.evaluations import Evaluated, evaluate_named
from mainspring.server.answering.inside import answering
from mainspring.server.features.vector_indexes import shapes_of
from mainspring.server.loop import apply, online_views
from mainspring.server.planning import plan_of
from mainspring.server.preflight import check_wiring, preflight
from mainspring.server.state import WorkerState
from mainspring.serving.endpoint import Answer

__all__ = ["Project", "open_project"]

_NOBODY = Identity("")


class Project:
    """An app with its settings; made by `open_project`, and closed by ``with``.

    Attributes:
        plan: the typed graph: ``plan.node("/model/late")``, ``plan.of_kind("endpoint")``.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._app = load_app(services.settings)
        self.plan: Plan = plan_of(self._app)
        self._state: WorkerState | None = None

    def __enter__(self) -> Project:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check(self) -> None:
        """What ``mainspring check`` does: wiring, settings, files, secrets; nothing is run.

        Raises:
            MainspringError: the first fault.
        """
        check_wiring(self.plan)
        preflight(self._services, self.plan)

    def build(self) -> RunReport:
        """What ``mainspring apply`` does, step after step in this process.

        Raises:
            MainspringError: what made a step fail.
        """
        self._let_go()
        report = apply(self._services, self._app, self.plan, inline=True, reason="test")
        if report.error is not None:
            raise report.error
        return report

    def ask(self, endpoint: str, row: Mapping[str, object], *, at: datetime | None = None) -> Answer:
        """One answer of an endpoint, without HTTP.

        Args:
            endpoint: its name.
            row: the keys and columns that a request carries.
            at: the moment the features are read at, with a time zone; now when left out.

        Raises:
            UsageError: MS-2602, there is no such endpoint; MS-2621, the moment has no time zone.
            DataError: MS-2301, MS-2302, the row does not fit.
            ConfigError: MS-3019, the model has no champion: `build` first.
        """
        if self._state is None:
            self._state = WorkerState(self._services, self.plan)
            self._state.open()
        service = self._state.endpoints.get(endpoint)
        if service is None:
            raise _unknown("endpoint", endpoint, self._state.endpoints)
        (answer,) = service.answer([row], [now_us() if at is None else _moment(at)])
        return answer

    def search(self, index: str, query: str, *, k: int = 10, identity: Identity = _NOBODY) -> SearchAnswer:
        """What an index finds.

        Args:
            index: its name.
            query: what is searched for.
            k: how many hits.
            identity: who asks; nobody in particular, who sees what is public, when left out.

        Raises:
            UsageError: MS-2602, there is no such index; MS-2434, it has no version yet: `build` first.
        """
        searcher = searcher_of(self._services, shape_of(cast(Index, self._node("index", index).declaration)))
        return searcher.search(SearchRequest(query, k), identity)

    def nearest(self, vector_index: str, **asked: object) -> NearestAnswer:
        """The entities that a vector index finds, with their features.

        Args:
            vector_index: its name.
            asked: as `NearestRequest`: ``vector=[..]`` or ``entity={"item": "a"}``, ``k``, ``filter``, ``features``.

        Raises:
            UsageError: MS-2602, there is no such index; MS-2451, MS-2452, it cannot be asked so.
            ServiceError: MS-4189, it is not built: `build` first.
        """
        self._node("vector_index", vector_index)
        shapes = shapes_of(self._services, self.plan, online_views(self._services, self.plan), sources_of(self.plan))
        searcher = VectorIndexSearcher(shapes[vector_index], self._services, now_us)
        try:
            request = msgspec.convert(asked, NearestRequest)
        except msgspec.ValidationError as error:
            raise UsageError(
                f"the search cannot be carried out: {error}", code="MS-2451", fix="vector=[0.1, 0.2], k=10"
            ) from error
        return searcher.search(request)

    def talk(self, assistant: str, text: str, *, identity: Identity = _NOBODY) -> Reply:
        """What an assistant replies, as the function of an evaluation sees it: ``text``, ``sources``, ``refused``.

        Args:
            assistant: its name.
            text: what is asked.
            identity: who asks; nobody in particular when left out.

        Raises:
            UsageError: MS-2602, there is no such assistant; ServiceError: MS-4250, its model does not start.
        """
        name = self._node("assistant", assistant).name

        async def go() -> Reply:
            async with (
                answering(self._services, self.plan) as assistants,
                aclosing(assistants[name].run(Asked((Message("user", (text,)),)), identity)) as events,
            ):
                return answer_of_run(fold([event async for event in events]))

        return asyncio.run(go())

    def evaluate(self, evaluation: str) -> Evaluated:
        """What ``mainspring run EVALUATION`` does: ``scores``, and whether the gate lets it through, ``passed``.

        Raises:
            UsageError: MS-2602, there is no such evaluation; DataError, UserCodeError: its cases or function fail.
        """
        return evaluate_named(self._services, self.plan, self._node("evaluation", evaluation), lambda line: None)

    def close(self) -> None:
        """Let go of files and connections."""
        self._let_go()
        self._services.close()

    def _node(self, kind: str, name: str) -> Node:
        known = {node.name: node for node in self.plan.of_kind(kind)}
        if name not in known:
            raise _unknown(kind, name, known)
        return known[name]

    def _let_go(self) -> None:
        if self._state is not None:
            self._state.close()
            self._state = None


def _unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    return UsageError(f"no {kind} is called {name!r}", code="MS-2602", fix=did_you_mean(name, known))


def _moment(at: datetime) -> int:
    if at.tzinfo is None:
        raise UsageError(f"at={at} has no time zone", code="MS-2621", fix="datetime(2025, 1, 1, tzinfo=UTC)")
    return round(at.timestamp() * 1_000_000)


def open_project(folder: Path, *, state: Path, profile: str | None = None) -> Project:
    """A project's app, loaded and checked as a graph.

    Args:
        folder: the folder with mainspring.toml.
        state: where everything that is built is kept instead of ``.mainspring``: pytest's ``tmp_path``.
        profile: a profile of mainspring.toml; ``MAINSPRING_PROFILE`` or ``dev`` when left out.

    Raises:
        ConfigError: MS-3001 to MS-3009; DeclarationError: as the app's declarations raise.
    """
    services = Services.of_project(folder.resolve(), profile=profile)
    services.state = state
    return Project(services)
