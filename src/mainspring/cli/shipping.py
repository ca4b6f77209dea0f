"""What is shipped, as the options of ``build`` and ``deploy`` name it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mainspring.choose.services import Services
from mainspring.config.project import load_app
from mainspring.deploy.image.build import run_settings
from mainspring.deploy.shipping import app_of, release_at
from mainspring.llm.sizing import sizings
from mainspring.plan.graph import Plan
from mainspring.ports.target import Job, LanguageModel, Release, Revision
from mainspring.server.planning import plan_of
from mainspring.server.schedules import Timetable, timetables

__all__ = ["revision_of", "revision_with"]


def revision_of(services: Services, image: str | None) -> Revision:
    """The app as it is declared, with an image by its digest, or the one that was pushed last.

    Raises:
        UsageError: MS-2744, MS-2745, there is no such image; ConfigError, DeclarationError: as the app is loaded.
    """
    return revision_with(services, release_at(services, image))


def revision_with(services: Services, release: Release) -> Revision:
    """The app as it is declared, with a release.

    Raises:
        ConfigError, DeclarationError: as the app is loaded.
    """
    graph = plan_of(load_app(services.settings))
    jobs, kept = _jobs(timetables(graph))
    return Revision(app_of(services, graph, jobs, kept, _models(services, graph)), release)


def _jobs(tables: Iterable[Timetable]) -> tuple[list[Job], list[str]]:
    jobs, kept = [], []
    for table in tables:
        if not table.cron:
            kept.append(table.name)
            continue
        name = re.sub(r"[^a-z0-9]+", "-", table.name.lower()).strip("-")
        jobs.append(Job(name, table.cron, table.zone, ("run", table.target, *table.arguments)))
    return jobs, kept


def _models(services: Services, graph: Plan) -> list[LanguageModel]:
    runs = run_settings(services.settings)
    found = []
    for one in sizings(runs, [node.name for node in graph.of_kind("llm")]):
        share = runs.setting(f"capacity.{one.llm}.utilisation")
        utilisation = 0.9 if share is None or share.value is None else float(str(share.value))
        found.append(LanguageModel(one.llm, one.gpus, one.length, utilisation, one.found.weights * one.gpus))
    return found
