"""The assistants that a server answers with, put together from the models, indexes, tools and views of the app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import cast

from mainspring.assistants import service, usable
from mainspring.assistants.declared import settings_of, tool_threads, usables_of
from mainspring.assistants.outside import Outside
from mainspring.assistants.run_log import RunLog
from mainspring.assistants.service import AssistantService, Parts
from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.declare.assistant import Assistant, McpServer
from mainspring.declare.data import FeatureView
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.identity import Identity
from mainspring.declare.llm import Prompt
from mainspring.declare.model import Endpoint
from mainspring.features.online.plan import compile_plan
from mainspring.features.view import View, pick
from mainspring.llm.gateway import Gateway
from mainspring.llm.values import Caller
from mainspring.plan.graph import Plan
from mainspring.ports.llm import Event, Generation
from mainspring.ports.threads import ThreadStore
from mainspring.rag.search import Searcher
from mainspring.server.answering.outside import names_are_apart
from mainspring.serving.endpoint import EndpointService

__all__ = ["Assistants", "assistants_of"]

Assistants = Mapping[str, AssistantService]
"""Assistants that are open, by name."""


class _Maker:
    """Puts the assistants of one process together."""

    def __init__(
        self,
        services: Services,
        gateway: Gateway,
        searchers: Mapping[str, Searcher],
        endpoints: Callable[[], Mapping[str, EndpointService]],
        views: Mapping[str, View],
        outside: Mapping[str, Outside],
        log: RunLog | None,
    ) -> None:
        self._services = services
        self._gateway = gateway
        self._searchers = searchers
        self._endpoints = endpoints
        self._views = views
        self._outside = outside
        self._log = log
        self._threads = tool_threads()

    def made(self, assistant: Assistant) -> AssistantService:
        """One assistant, open."""
        spec, log = spec_of(assistant), self._log
        others = {name_of(item): self._other(item) for item in spec.may if isinstance(item, Endpoint | FeatureView)}
        outside = [self._outside[name_of(item)] for item in spec.may if isinstance(item, McpServer)]
        usables = usables_of(assistant, self._threads, others)
        names_are_apart(assistant, usables, [one.server for one in outside])
        parts = Parts(
            self._gateway.generate,
            now_us,
            {name_of(index): self._searchers[name_of(index)] for index in spec.knows},
            usables,
            outside,
            billed=self._billed,
            threads=cast(ThreadStore, self._services.get("threads")),
            record=None if log is None else log.put,
            forget=(lambda threads: None) if log is None else log.forget,
        )
        settings = settings_of(assistant, self._rendered)
        return service.open_assistant(settings, parts)

    def _billed(self, caller: Identity) -> Callable[[Generation], AsyncIterator[Event]]:
        return partial(self._gateway.generate, caller=Caller(tenant=caller.tenant, user=caller.user))

    def _rendered(self, prompt: Prompt) -> str:
        prompts = self._gateway.prompts
        (turn,) = prompts.render(prompts.find(name_of(prompt)), {})
        return turn.text

    def _other(self, item: Endpoint | FeatureView) -> usable.Usable:
        """An endpoint or a feature view of the app as a tool."""
        if isinstance(item, Endpoint):
            described = spec_of(spec_of(item).model).function.__doc__ or ""
            return usable.of_endpoint(self._endpoints()[name_of(item)], described.strip(), now_us)
        view = self._views[name_of(item)]
        plan = compile_plan(self._services.online, [pick(view)])
        names = [feature.name for feature in view.features]

        def read(keys: Mapping[str, object], at_us: int) -> Mapping[str, object]:
            values, status = plan.read_one(keys, at_us)
            return {**dict(zip(names, values, strict=True)), "status": next(iter(status.values()), "PRESENT")}

        return usable.of_features(view.name, {key.name: key.type for key in view.keys}, read, "", now_us)


def assistants_of(
    services: Services,
    plan: Plan,
    gateway: Gateway,
    searchers: Mapping[str, Searcher],
    endpoints: Callable[[], Mapping[str, EndpointService]],
    views: Mapping[str, View],
    outside: Mapping[str, Outside],
    log: RunLog | None = None,
) -> Assistants:
    """Every assistant of an app; without any, nothing is imported or opened.

    Args:
        services: the project's ports.
        plan: the app's graph.
        gateway: answers generations inside the process.
        searchers: the indexes by name.
        endpoints: the model endpoints that answer, by name.
        views: the feature views with the numbers under which they are kept online.
        outside: the MCP servers of the app, by name; whoever made them starts and closes them.
        log: takes each run that is over, and forgets those of deleted threads.

    Raises:
        ConfigError: MS-3061, a tool needs approval and there is nowhere to keep threads; MS-3062, LangChain is not
            installed; MS-3068, two tools have one name; as the choice of the threads' adapter raises.
    """
    nodes = plan.of_kind("assistant")
    if not nodes:
        return {}
    maker = _Maker(services, gateway, searchers, endpoints, views, outside, log)
    return {node.name: maker.made(cast(Assistant, node.declaration)) for node in nodes}
