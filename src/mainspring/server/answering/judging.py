"""Cases put to an index: by an evaluation, and by the gate that a new version of it passes before it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mainspring.assistants.evaluate import Answer, Case, answer_of_search, evaluate, gate, read_cases
from mainspring.choose.services import Services
from mainspring.config.project import load_app
from mainspring.declare.assistant import Evaluation
from mainspring.declare.declaration import DeclaredKind, name_of, origin_of, spec_of
from mainspring.declare.documents import Index
from mainspring.declare.identity import Identity
from mainspring.errors import DataError, RefusedError
from mainspring.ports.manifest import IndexVersion
from mainspring.rag.search import Searcher, SearchRequest
from mainspring.rag.steps import searcher_of, shape_of
from mainspring.rag.versions import Judgement

__all__ = ["caller_of", "cases_of", "judge_of", "searched"]

_PLACES = 10


def judge_of(services: Services, index: Index) -> Callable[[IndexVersion], Judgement] | None:
    """Says whether a version of an index may answer, by the app's evaluations of it; None when none has least values.

    Raises:
        DataError: MS-2503, a line of the file is no case; MS-2505, the file cannot be read.
        UserCodeError: MS-2504, the evaluation's function fails.
    """
    name = name_of(index)
    wanted = [
        item
        for item in load_app(services.settings).of_kind(DeclaredKind.EVALUATION)
        if isinstance(item, Evaluation) and spec_of(item).least and _is(spec_of(item).target, name)
    ]

    def judge(version: IndexVersion) -> Judgement:
        searcher = searcher_of(services, shape_of(index))
        scores: dict[str, float] = {}
        refused = []
        for item in wanted:
            spec, own = spec_of(item), name_of(item)

            async def ask(case: Case) -> Answer:
                return await searched(searcher, case, version.version)

            report = asyncio.run(evaluate(own, cases_of(services, item), ask, spec.function))
            scores |= {f"{own}.{measure}": value for measure, value in report.measures.items()}
            try:
                gate(report, dict(spec.least))
            except RefusedError as error:
                refused.append(f"{own}: {error.why}")
        return Judgement(scores, "; ".join(refused))

    return judge if wanted else None


def _is(target: object, index: str) -> bool:
    return isinstance(target, Index) and name_of(target) == index


async def searched(searcher: Searcher, case: Case, version: int | None = None) -> Answer:
    """What an index finds for a case, in the version that answers or in another."""
    request = SearchRequest(str(case["question"]), _PLACES, version=version)
    return answer_of_search(await asyncio.to_thread(searcher.search, request, caller_of(case)))


def caller_of(case: Case) -> Identity:
    """Who asks, as the case says; nobody in particular without."""
    return Identity(str(case.get("user", "")), tuple(map(str, case.get("groups", ()))), str(case.get("tenant", "")))


def cases_of(services: Services, evaluation: Evaluation) -> list[Case]:
    """An evaluation's cases.

    Raises:
        DataError: MS-2503, a line of the file is no case; MS-2505, the file cannot be read.
    """
    place = spec_of(evaluation).cases
    try:
        data = (services.project / place).read_bytes()
    except OSError as error:
        raise DataError(
            f"the cases {place!r} cannot be read",
            code="MS-2505",
            why=str(error.strerror),
            origin=str(origin_of(evaluation)),
            fix="cases= is a file of JSON lines, relative to the project",
        ) from error
    return read_cases(data, place)
