"""Evaluations carried out: cases put to an assistant or an index, measures kept, the gate asked."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import msgspec

from mainspring.assistants.evaluate import (
    Answer,
    Asking,
    Case,
    Judge,
    Report,
    answer_of_run,
    evaluate,
    gate,
)
from mainspring.assistants.events import Spent, fold
from mainspring.assistants.service import Asked, AssistantService
from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.declare.assistant import Assistant, Evaluation
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.documents import Index
from mainspring.declare.llm import AnyLLM
from mainspring.errors import RefusedError
from mainspring.plan.graph import Node, Plan
from mainspring.ports.catalog import Event
from mainspring.ports.llm import Generation, Message, Sampling, Text, Usage
from mainspring.rag.steps import searcher_of, shape_of
from mainspring.server.answering.inside import answering
from mainspring.server.answering.judging import caller_of, cases_of, searched
from mainspring.server.answering.language import Language

__all__ = ["Evaluated", "evaluate_named"]

_WORST = 10
_JUDGING = Sampling(temperature=0.0, max_tokens=8)


class Evaluated(msgspec.Struct, frozen=True):
    """What came of an evaluation.

    Attributes:
        name: of the evaluation.
        cases: how many were tried.
        scores: the mean of each measure.
        passed: whether the gate lets it through.
        why: why it does not.
        worst: the cases that the evaluation's own function finds worst, with what was answered.
    """

    name: str
    cases: int
    scores: dict[str, float]
    passed: bool
    why: str
    worst: tuple[dict[str, Any], ...] = ()


def evaluate_named(services: Services, plan: Plan, node: Node, told: Callable[[str], None]) -> Evaluated:
    """Carry an evaluation out; its measures are kept as an event of the catalog.

    Raises:
        DataError: MS-2503, a line of the file is no case; MS-2505, the file cannot be read.
        UserCodeError: MS-2504, the evaluation's function fails.
    """
    declaration = cast(Evaluation, node.declaration)
    spec, cases = spec_of(declaration), cases_of(services, declaration)
    report = asyncio.run(_tried(services, plan, declaration, cases, told))
    why = ""
    try:
        gate(report, dict(spec.least))
    except RefusedError as error:
        why = error.why
    done = Evaluated(node.name, len(cases), dict(report.measures), not why, why, _worst(report))
    data = msgspec.to_builtins(done)
    services.catalog.add_event(Event(now_us(), getpass.getuser(), "evaluation.done", node.url, data))
    return done


async def _tried(
    services: Services, plan: Plan, declaration: Evaluation, cases: list[Case], told: Callable[[str], None]
) -> Report:
    spec, name = spec_of(declaration), name_of(declaration)
    done = 0

    def counted(asking: Asking) -> Asking:
        async def ask(case: Case) -> Answer:
            nonlocal done
            answer = await asking(case)
            done += 1
            told(f"{name}: {done} of {len(cases)}")
            return answer

        return ask

    async with _asking(services, plan, spec.target, told) as asking, _judging(services, plan, spec.judge) as judge:
        return await evaluate(name, cases, counted(asking), spec.function, judge=judge)


@asynccontextmanager
async def _asking(
    services: Services, plan: Plan, target: Assistant | Index, told: Callable[[str], None]
) -> AsyncIterator[Asking]:
    if isinstance(target, Index):
        searcher = searcher_of(services, shape_of(target))
        try:
            yield lambda case: searched(searcher, case)
        finally:
            services.close()
        return
    async with answering(services, plan, told) as assistants:
        assistant = assistants[name_of(target)]
        price = _priced(services, plan, assistant.settings.model)
        yield lambda case: _answered(assistant, case, price)


def _priced(services: Services, plan: Plan, model: str) -> Callable[[Spent], int] | None:
    """What tokens cost by the present price of a model, or of a route's first one; None where it has none."""
    language = Language(services, plan, lambda line: None)

    def price(spent: Spent) -> int | None:
        usage = Usage(spent.prompt, spent.completion, cached=spent.cached)
        return language.cost_micro(model, usage, now_us() * 1000)

    nothing = Spent(prompt=0, completion=0, cached=0, model_calls=0, tool_calls=0)
    return None if price(nothing) is None else lambda spent: price(spent) or 0


async def _answered(assistant: AssistantService, case: Case, price: Callable[[Spent], int] | None) -> Answer:
    asked = Asked((Message("user", (str(case["question"]),)),))
    async with aclosing(assistant.run(asked, caller_of(case))) as events:
        return answer_of_run(fold([event async for event in events]), price)


@asynccontextmanager
async def _judging(services: Services, plan: Plan, llm: AnyLLM | None) -> AsyncIterator[Judge | None]:
    if llm is None:
        yield None
        return
    language = Language(services, plan, lambda line: None)
    await language.start_once()

    async def ask(text: str) -> str:
        said = ""
        request = Generation("", name_of(llm), (Message("user", (text,)),), sampling=_JUDGING)
        async for event in language.inner.generate(request):
            said += event.text if isinstance(event, Text) else ""
        return said

    try:
        yield Judge(name_of(llm), ask)
    finally:
        await language.stop(1.0)


def _worst(report: Report) -> tuple[dict[str, Any], ...]:
    own = [one for one in report.tried if report.name in one.measures]
    own.sort(key=lambda one: one.measures[report.name])
    return tuple(
        {
            "question": one.case["question"],
            "answer": one.answer.text[:500],
            "sources": list(one.answer.sources),
            report.name: one.measures[report.name],
        }
        for one in own[:_WORST]
    )
