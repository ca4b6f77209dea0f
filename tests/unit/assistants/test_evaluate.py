"""Evaluations: measures without a judge, the user's function, judges, gates."""

import asyncio
import math

import pytest

from assistants_kit import ADA, PAGES, all_of, asked, assistant
from mainspring.assistants.evaluate import (
    Answer,
    Judge,
    Names,
    answer_of_run,
    answer_of_search,
    evaluate,
    gate,
    read_cases,
)
from mainspring.assistants.events import fold
from mainspring.errors import DataError, RefusedError, UserCodeError
from mainspring.ports.llm import Error
from mainspring.rag.search import SearchRequest
from mainspring.testing import Script
from mainspring.testing.library import Library

CASES = [
    {
        "question": "When may goods be returned?",
        "must_cite": "returns.md",
        "answers": ["within 30 days of delivery"],
        "label": True,
    },
    {"question": "How long does delivery take?", "must_cite": "manuals/shipping.md", "answers": ["two days"]},
    {"question": "Who was the first king of delivery?", "unanswerable": True, "label": False},
    {"question": "Is the warehouse open at noon?", "must_cite": "shipping.md", "label": True},
]
SAID = {
    "When may": "Goods may be returned within 30 days of delivery [1].",
    "How long": "It is carried by seven green elephants [2].",
    "Who was": "The manuals do not say.",
    "Is the": Error("overloaded", "too many"),
}


def says(request):
    question = request.messages[-1].text
    return next(said for begin, said in SAID.items() if begin in question)


def grounded(answer, case):
    return case["must_cite"] in answer.sources if "must_cite" in case else answer.refused


def tried(cases=CASES, function=grounded, **more):
    service, _ = assistant(Script(says))

    async def ask(case):
        run = fold(await all_of(service.run(asked(case["question"]), ADA)))
        return answer_of_run(run, lambda spent: 10 * spent.completion)

    return asyncio.run(evaluate("grounded", cases, ask, function, **more))


def test_the_measures_of_an_assistant():
    report = tried()
    first, second, third, fourth = report.tried
    assert first.measures["citation_precision"] == 1
    assert second.measures["citation_precision"] == 0
    assert "citation_precision" not in third.measures
    assert (third.measures["refusal"], first.measures["answered"]) == (1, 1)
    assert "answered" not in third.measures
    assert first.measures["token_f1"] > 0.7
    assert second.measures["token_f1"] == 0
    assert first.measures["recall@10"] == second.measures["recall@10"] == 1
    assert fourth.measures == {"failed": 1, "seconds": 0, "grounded": 0}
    assert report.measures["grounded"] == 0.75
    assert report.measures["failed"] == 0.25
    assert report.measures["citation_precision"] == 0.5
    assert (
        report.measures["cost_micro"]
        == 10 * sum(one.answer.usage.completion for one in report.tried if one.answer.usage)
        - 10 * fourth.answer.usage.completion
    )
    assert 0 < report.measures["seconds_p50"] <= report.measures["seconds_p95"]
    assert math.isnan(report.agreement)


def test_what_the_users_function_sees():
    seen = {}

    def look(answer, case):
        seen[case["question"]] = answer
        return 0.5

    assert tried(CASES[:1], look).measures["grounded"] == 0.5
    answer = seen["When may goods be returned?"]
    assert answer.text == "Goods may be returned within 30 days of delivery [1]."
    assert list(answer.sources) == ["manuals/returns.md"]
    assert answer.citations[0].quote == "Goods may be returned within 30 days of delivery."
    assert (answer.refused, answer.usage.model_calls) == (False, 1)
    assert answer.seconds > 0


@pytest.mark.parametrize("name", ["docs/manuals/returns.md", "manuals/returns.md", "returns.md", "Returns and refunds"])
def test_a_source_is_known_by_its_names(name):
    assert name in Names(["docs/manuals/returns.md"], ["Returns and refunds"])


@pytest.mark.parametrize("name", ["turns.md", "returns", "manuals", "", "other/returns.md", None, 3])
def test_and_by_no_others(name):
    assert name not in Names(["docs/manuals/returns.md"], ["Returns and refunds"])


def test_an_index_is_tried_by_what_it_finds():
    library = Library(PAGES)

    async def ask(case):
        return answer_of_search(library.search(SearchRequest(case["question"]), ADA))

    report = asyncio.run(evaluate("found", CASES[:2], ask, grounded))
    assert report.measures["found"] == 1
    assert 0 < report.measures["mrr@10"] <= 1
    assert "citation_precision" not in report.measures


def test_graded_judgements_count():
    async def ask(case):
        return Answer(retrieved=Names(["a.md", "b.md"]))

    case = {"question": "x", "relevant": {"a.md": 1, "b.md": 2}}
    report = asyncio.run(evaluate("found", [case], ask))
    assert report.measures["ndcg@10"] == pytest.approx((1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3)))


def test_a_judge_says_what_it_thinks_and_how_often_people_agree():
    asked_of_judge = []

    async def verdict(text):
        asked_of_judge.append(text)
        return "Yes." if "30 days" in text else "No, it is not."

    cases = [CASES[0], {**CASES[0], "label": False}, CASES[2]]
    report = tried(cases, judge=Judge("strict-1", verdict))
    assert [one.measures["judge"] for one in report.tried] == [1, 1, 0]
    assert (report.judge, report.agreement) == ("strict-1", pytest.approx(2 / 3))
    assert report.kappa == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    assert "When may goods be returned?" in asked_of_judge[0]
    assert "within 30 days of delivery" in asked_of_judge[0]


def test_a_judge_that_says_neither_counts_for_nothing():
    async def verdict(text):
        return "Perhaps."

    report = tried(CASES[:1], judge=Judge("odd", verdict))
    assert math.isnan(report.measures["judge"])
    assert math.isnan(report.agreement)


def test_the_gate():
    report = tried()
    gate(report, {"grounded": 0.75, "refusal": 1})
    with pytest.raises(RefusedError) as caught:
        gate(report, {"refusal": 1, "grounded": 0.76, "answered": 2})
    assert (caught.value.code, caught.value.exit_status) == ("MS-5063", 5)
    assert caught.value.why == "grounded has 0.750, at least 0.76 is asked for; so are answered"
    with pytest.raises(RefusedError, match="below its gate"):
        gate(report, {"misspelt": 0.0})


def test_a_function_that_cannot_judge():
    for function in (lambda answer, case: case["nothing"], lambda answer, case: None, lambda a, c: math.nan):
        with pytest.raises(UserCodeError) as caught:
            tried(CASES[:1], function)
        assert caught.value.code == "MS-2504"
        assert "When may goods" in caught.value.origin


def test_cases_from_lines():
    assert read_cases(b'{"question": "a"}\n\n{"question": "b", "x": 1}\n', "c.jsonl") == [
        {"question": "a"},
        {"question": "b", "x": 1},
    ]
    for data, origin in ((b'{"question": "a"}\n{', "c.jsonl:2"), (b'{"q": 1}', "c.jsonl:1"), (b"\n", "c.jsonl")):
        with pytest.raises(DataError) as caught:
            read_cases(data, "c.jsonl")
        assert (caught.value.code, caught.value.origin) == ("MS-2503", origin)
