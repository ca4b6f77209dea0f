"""Evaluation without a judge: cases in, measures out; a judge is one measure more, with its agreement beside it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, TypeAlias

import msgspec

from mainspring.assistants.events import Citation, Folded, Source, Spent
from mainspring.assistants.text import without_markers
from mainspring.errors import DataError, RefusedError, UserCodeError
from mainspring.metrics.retrieval import averaged, citation_precision, ndcg, recall_at, reciprocal_rank, token_f1
from mainspring.rag.search import SearchAnswer

__all__ = [
    "Answer",
    "Asking",
    "Case",
    "Judge",
    "Names",
    "Report",
    "Tried",
    "answer_of_run",
    "answer_of_search",
    "evaluate",
    "gate",
    "read_cases",
]

Case: TypeAlias = dict[str, Any]
"""A case: ``question``, and what is known of its answer.

``must_cite`` or ``relevant`` (names of documents, or names with gains), ``answers`` (references), ``unanswerable``,
``label`` (whether a person finds a recorded answer good, for a judge's agreement); anything else is the user's own.
"""
Asking: TypeAlias = Callable[[Case], Awaitable["Answer"]]
"""Answers a case."""

_SHARE = 0.75
"""The share of a sentence's content tokens that the cited chunk must hold."""
_PLACES = 10


class Names(tuple[str, ...]):
    """Documents by their addresses; ``in`` knows each by its title and by any end of its path, too.

    >>> "returns.md" in Names(["docs/manuals/returns.md"])
    True
    """

    titles: frozenset[str]

    def __new__(cls, uris: Iterable[str], titles: Iterable[str] = ()) -> Names:
        """Addresses, each once, in order."""
        made = super().__new__(cls, dict.fromkeys(uris))
        made.titles = frozenset(titles)
        return made

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.titles or any(_names(name, uri) for uri in self))

    def place(self, name: str) -> str:
        """The address that a name means, or the name itself when it means none."""
        return next((uri for uri in self if _names(name, uri)), name)


def _names(name: str, uri: str) -> bool:
    wanted, parts = PurePosixPath(name).parts, PurePosixPath(uri).parts
    return bool(wanted) and parts[-len(wanted) :] == wanted


class Answer(msgspec.Struct, frozen=True):
    """What is tried, as the user's function sees it.

    Attributes:
        text: the answer; empty for a search.
        sources: the documents that it cites; of a search, those that it found.
        retrieved: the documents that were found, the best first.
        citations: the passages that it stands on.
        refused: whether it says that it does not know.
        usage: tokens, or None.
        seconds: how long it took.
        cost_micro: what it cost, in micro-units of money, or None where that is not known.
        failed: why there is no answer, or empty.
        supported: for each citation the sentence of the answer, and the chunk that it cites.
    """

    text: str = ""
    sources: Names = Names(())
    retrieved: Names = Names(())
    citations: tuple[Citation, ...] = ()
    refused: bool = False
    usage: Spent | None = None
    seconds: float = 0.0
    cost_micro: int | None = None
    failed: str = ""
    supported: tuple[tuple[str, str], ...] = ()


def answer_of_run(run: Folded, price: Callable[[Spent], int] | None = None) -> Answer:
    """A run as an answer.

    Args:
        run: folded.
        price: what its tokens cost, in micro-units.
    """
    texts = {source.number: source.text for source in run.sources}
    cited = [one.citation for one in run.citations]
    failed = run.error.kind if run.error else "interrupt" if run.interrupt else ""
    return Answer(
        text=run.text,
        sources=Names((one.uri for one in cited), (one.title for one in cited)),
        retrieved=_retrieved(run.sources),
        citations=tuple(cited),
        refused=run.end is not None and run.end.refused,
        usage=run.usage,
        seconds=0.0 if run.end is None else run.end.took_us / 1e6,
        cost_micro=None if price is None or run.usage is None else price(run.usage),
        failed=failed,
        supported=tuple((run.text[one.start : one.end], texts.get(one.number, "")) for one in run.citations),
    )


def _retrieved(sources: Sequence[Source]) -> Names:
    return Names((source.uri for source in sources), (source.title for source in sources))


def answer_of_search(found: SearchAnswer) -> Answer:
    """A search as an answer; its sources are what it found."""
    names = Names((hit.uri for hit in found.hits), (hit.title for hit in found.hits))
    took = found.took_us
    return Answer(sources=names, retrieved=names, seconds=(took.embed + took.search + took.rerank) / 1e6)


class Tried(msgspec.Struct, frozen=True):
    """One case, what it was answered, and how good that is; a measure that says nothing about it is left out."""

    case: Case
    answer: Answer
    measures: Mapping[str, float]


class Judge(msgspec.Struct, frozen=True):
    """A model that judges.

    Attributes:
        id: which, as reports keep it.
        ask: its verdict on a text, as it says it.
    """

    id: str
    ask: Callable[[str], Awaitable[str]]


class Report(msgspec.Struct, frozen=True):
    """What came of an evaluation.

    Attributes:
        name: of the evaluation.
        tried: its cases, in order.
        measures: the mean of each over the cases that it says something about; ``seconds_p50``, ``seconds_p95``,
            ``cost_micro`` (of all cases together).
        judge: the judge's id, or empty.
        agreement: the share of labelled cases where the judge says what the label says, or NaN.
        kappa: Cohen's kappa of the same, or NaN.
    """

    name: str
    tried: tuple[Tried, ...]
    measures: Mapping[str, float]
    judge: str = ""
    agreement: float = math.nan
    kappa: float = math.nan


def read_cases(data: bytes, origin: str) -> list[Case]:
    """Cases from JSON lines.

    Args:
        data: of the file; empty lines are left out.
        origin: what errors call it.

    Raises:
        DataError: MS-2503, a line is no case, or there is none.
    """
    found: list[Case] = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            case = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise _no_case(f"{origin}:{number}", str(error)) from None
        if not isinstance(case.get("question"), str):
            raise _no_case(f"{origin}:{number}", "it has no question")
        found.append(case)
    if not found:
        raise _no_case(origin, "the file is empty")
    return found


def _no_case(origin: str, why: str) -> DataError:
    return DataError(
        "this is no case of an evaluation",
        code="MS-2503",
        why=why,
        origin=origin,
        fix='each line is a JSON object such as {"question": "...", "must_cite": "manual.md"}',
    )


async def evaluate(
    name: str,
    cases: Sequence[Case],
    ask: Asking,
    function: Callable[[Answer, Case], bool | float] | None = None,
    *,
    judge: Judge | None = None,
    at_once: int = 1,
) -> Report:
    """Try all cases.

    Args:
        name: of the evaluation, and of the measure that the function is.
        cases: what is tried.
        ask: answers one.
        function: the user's, of one answer and its case; a truth or a number.
        judge: judges each answer too.
        at_once: cases under way.

    Raises:
        UserCodeError: MS-2504, the user's function fails or returns no number.
    """
    room = asyncio.Semaphore(at_once)

    async def one(case: Case) -> Tried:
        async with room:
            answer = await ask(case)
            measures = _measured(answer, case)
            if function is not None:
                measures[name] = 0.0 if answer.failed else _own(name, function, answer, case)
            if judge is not None and not answer.failed:
                measures["judge"] = _verdict(await judge.ask(_question_to_judge(answer, case)))
            return Tried(case, answer, measures)

    tried = tuple(await asyncio.gather(*(one(case) for case in cases)))
    agreement, kappa = _agreement(tried)
    return Report(name, tried, _means(tried), judge.id if judge else "", agreement, kappa)


def _own(name: str, function: Callable[[Answer, Case], bool | float], answer: Answer, case: Case) -> float:
    try:
        found = function(answer, case)
    except Exception as error:
        raise _failed(name, f"{type(error).__name__}: {error}", case) from error
    if not isinstance(found, bool | int | float) or math.isnan(found):
        raise _failed(name, f"it returned {found!r}", case)
    return float(found)


def _failed(name: str, why: str, case: Case) -> UserCodeError:
    return UserCodeError(
        f"evaluation {name!r} cannot judge a case",
        code="MS-2504",
        why=why,
        origin=f"question: {case['question']}",
        fix="return a truth or a number for every case",
    )


def _measured(answer: Answer, case: Case) -> dict[str, float]:
    """The built-in measures; those that say nothing are left out."""
    if answer.failed:
        return {"failed": 1.0, "seconds": answer.seconds}
    unanswerable = bool(case.get("unanswerable"))
    found = {
        "failed": 0.0,
        "seconds": answer.seconds,
        "citation_precision": citation_precision(answer.supported, _SHARE),
        "refusal" if unanswerable else "answered": float(answer.refused == unanswerable),
        "token_f1": token_f1(without_markers(answer.text), _texts(case.get("answers"))),
        "cost_micro": math.nan if answer.cost_micro is None else float(answer.cost_micro),
        "tokens": math.nan if answer.usage is None else float(answer.usage.prompt + answer.usage.completion),
        **_retrieval(answer, case),
    }
    if answer.text and not unanswerable:
        found["cited"] = float(bool(answer.citations))
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _retrieval(answer: Answer, case: Case) -> dict[str, float]:
    given = case.get("relevant", case.get("must_cite"))
    gains = given if isinstance(given, dict) else dict.fromkeys(_texts(given), 1.0)
    placed = {answer.retrieved.place(name): float(gain) for name, gain in gains.items()}
    wanted = {name for name, gain in placed.items() if gain > 0}
    ranked = list(answer.retrieved)
    return {
        f"ndcg@{_PLACES}": ndcg(ranked, placed, _PLACES),
        f"recall@{_PLACES}": recall_at(ranked, wanted, _PLACES),
        f"mrr@{_PLACES}": reciprocal_rank(ranked, wanted, _PLACES),
    }


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(one) for one in value] if isinstance(value, list | tuple) else []


def _means(tried: Sequence[Tried]) -> dict[str, float]:
    names = dict.fromkeys(name for one in tried for name in one.measures)
    means = {name: averaged(one.measures[name] for one in tried if name in one.measures) for name in names}
    seconds = sorted(one.measures["seconds"] for one in tried)
    means["seconds_p50"], means["seconds_p95"] = _quantile(seconds, 0.5), _quantile(seconds, 0.95)
    if "cost_micro" in means:
        means["cost_micro"] = math.fsum(one.measures.get("cost_micro", 0.0) for one in tried)
    return means


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The least value that at least this share of all do not exceed (the inverse of the distribution function)."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan


# -- judges -----------------------------------------------------------------------------------------------------------


def _question_to_judge(answer: Answer, case: Case) -> str:
    references = "\n".join(f"- {text}" for text in _texts(case.get("answers"))) or "- none"
    passages = "\n".join(f"- {chunk}" for _, chunk in answer.supported) or "- none"
    return (
        f"Question:\n{case['question']}\n\nReference answers:\n{references}\n\nCited passages:\n{passages}\n\n"
        f"Answer to judge:\n{answer.text}\n\nIs the answer right, and borne out by the passages? Reply yes or no."
    )


def _verdict(said: str) -> float:
    first = said.strip().lower().lstrip("*\"' ")
    return 1.0 if first.startswith("yes") else 0.0 if first.startswith("no") else math.nan


def _agreement(tried: Sequence[Tried]) -> tuple[float, float]:
    """Share of equal verdicts, and how far it exceeds what chance gives (Cohen 1960)."""
    pairs = [
        (bool(one.case["label"]), one.measures["judge"] >= 0.5)
        for one in tried
        if "label" in one.case and not math.isnan(one.measures.get("judge", math.nan))
    ]
    if not pairs:
        return math.nan, math.nan
    count = len(pairs)
    agreed = sum(label == said for label, said in pairs) / count
    labels, verdicts = sum(label for label, _ in pairs) / count, sum(said for _, said in pairs) / count
    chance = labels * verdicts + (1 - labels) * (1 - verdicts)
    return agreed, math.nan if chance == 1 else (agreed - chance) / (1 - chance)


# -- gates ------------------------------------------------------------------------------------------------------------


def gate(report: Report, least: Mapping[str, float]) -> None:
    """Let an evaluation pass that has at least these measures.

    Raises:
        RefusedError: MS-5063, one is less, or says nothing.
    """
    short = {name: report.measures.get(name, math.nan) for name in least}
    short = {name: value for name, value in short.items() if not value >= least[name]}
    if short:
        name, value = next(iter(short.items()))
        shown = "no value" if math.isnan(value) else f"{value:.3f}"
        rest = f"; so are {', '.join(list(short)[1:])}" if len(short) > 1 else ""
        raise RefusedError(
            f"evaluation {report.name!r} is below its gate",
            code="MS-5063",
            why=f"{name} has {shown}, at least {least[name]:g} is asked for{rest}",
            fix=f"look at its worst cases: mainspring show evaluation/{report.name}",
        )
