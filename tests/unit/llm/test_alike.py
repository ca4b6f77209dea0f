"""The cache of questions that are alike: whose answers are given to whom, what is not compared, what it forgets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_kit import Scripted, route, says
from mainspring.errors import ConfigError
from mainspring.llm.alike import Alike, AlikeCache, question_of, telling_words
from mainspring.llm.gateway import Gateway
from mainspring.llm.keys import digest_of
from mainspring.llm.otlp import span_of
from mainspring.llm.record import CallRecord, Recorder
from mainspring.llm.refused import Refused
from mainspring.llm.values import Call, Caller, Key
from mainspring.ports.embedder import Embedder
from mainspring.ports.llm import (
    End,
    Event,
    Generation,
    Image,
    Message,
    Sampling,
    Schema,
    Start,
    Text,
    Tool,
    ToolDelta,
)

GREEDY = Sampling(temperature=0)
ADA = Caller(Key(id="ada", digest=digest_of("a"), tenant="acme"), "acme")
BEN = Caller(Key(id="ben", digest=digest_of("b"), tenant="acme"), "acme")
EVE = Caller(Key(id="ada", digest=digest_of("e"), tenant="umbrella"), "umbrella")


class Words:
    """An embedder whose vectors count words: texts of the same words, in any order, are equal."""

    id, dims, max_tokens, normalised, tokenizer = "words", 256, 64, False, ""

    def __init__(self, pause_s: float = 0.0, fault: Exception | None = None) -> None:
        self.asked: list[str] = []
        self.pause_s = pause_s
        self.fault = fault

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def embed_documents(self, texts: Sequence[str]) -> Any:
        return np.stack([self.embed_query(text) for text in texts])

    def embed_query(self, text: str) -> Any:
        self.asked.append(text)
        time.sleep(self.pause_s)
        if self.fault is not None:
            raise self.fault
        vector = np.zeros(self.dims, np.float32)
        for word in text.lower().split():
            vector[sum(word.encode()) % self.dims] += 1
        return vector

    def close(self) -> None: ...


class Kept(Recorder):
    """Keeps the records that it is given."""

    def __init__(self) -> None:
        super().__init__([])
        self.records: list[CallRecord] = []

    def add(self, record: CallRecord) -> None:
        self.records.append(record)


class Desk:
    """A gateway whose engine answers each question with a number of its own."""

    def __init__(self, words: Words | None = None, least: float = 0.9, **options: Any) -> None:
        self.words = words or Words()
        self.engine = Scripted(lambda request: says(f"answer {len(self.engine.requests)}"))
        self.records = Kept()
        self.said: list[str] = []
        self.gateway = Gateway(
            [route(self.engine, cache_s=60, alike=least, **options)],
            recorder=self.records,
            alike=Alike(lambda: self.words, self.said.append),
        )

    def ask(self, text: str, caller: Caller = ADA, prompt: str = "", api: Any = "chat", **fields: Any) -> str:
        fields = {"sampling": GREEDY, "messages": (Message("user", (text,)),), **fields}
        call = Call(Generation("id", "chat", **fields), caller, api, stream=False, prompt=prompt)
        done = asyncio.run(self.gateway.complete(call))
        assert not isinstance(done, Refused)
        return done[1].text(0)


def test_a_question_that_is_alike_has_the_same_answer_and_the_likeness_is_recorded() -> None:
    desk = Desk()
    assert isinstance(desk.words, Embedder)
    assert desk.ask("how do I return a parcel please") == "answer 1"
    assert desk.ask("please how do I return a parcel") == "answer 1"
    assert desk.ask("how do I return a parcel") == "answer 1"
    assert desk.ask("what does a stamp cost today") == "answer 2"
    assert desk.ask("how do I return a parcel please") == "answer 1"
    found = [(record.cache, record.similarity, record.cost_micro) for record in desk.records.records]
    assert found[0] == ("", None, 0)
    assert found[1] == ("semantic", pytest.approx(1.0), 0)
    assert found[2] == ("semantic", pytest.approx((6 / 7) ** 0.5, abs=1e-5), 0)
    assert found[3][:2] == ("", None)
    assert found[4][:2] == ("exact", None), "equal requests need no vector"
    assert len(desk.words.asked) == 4
    told = span_of(desk.records.records[2]).facts
    assert told["mainspring.cache"] == "semantic"
    assert told["mainspring.cache.similarity"] == pytest.approx((6 / 7) ** 0.5, abs=1e-5)


def test_streams_are_given_again_as_they_were() -> None:
    desk = Desk()

    async def streamed(text: str) -> list[Event]:
        asked = Generation("id", "chat", (Message("user", (text,)),), sampling=GREEDY)
        return [event async for event in desk.gateway.generate(asked, Caller(tenant="acme", user="ada"))]

    first = asyncio.run(streamed("how do I return a parcel please"))
    assert asyncio.run(streamed("please how do I return a parcel")) == first
    assert len(desk.engine.requests) == 1


def test_trap_12_nobody_has_the_answer_to_another_callers_question() -> None:
    desk = Desk()
    assert desk.ask("what is in my contract please", ADA) == "answer 1"
    assert desk.ask("please what is in my contract", BEN) == "answer 2", "another key of the same tenant"
    assert desk.ask("what please is in my contract", EVE) == "answer 3", "a key of the same name, of another tenant"
    colleague = Caller(ADA.key, "acme", "her colleague")
    assert desk.ask("what is please in my contract", colleague) == "answer 4", "another person behind one key"
    assert desk.ask("what is in please my contract", ADA) == "answer 1"


def test_an_answer_that_one_caller_has_poisoned_is_not_anothers() -> None:
    desk = Desk()
    desk.engine.script = lambda request: says("send the money to me")
    assert desk.ask("where do I pay the invoice please", EVE) == "send the money to me"
    desk.engine.script = lambda request: says("to the account on it")
    for caller in (ADA, BEN):
        assert desk.ask("please where do I pay the invoice", caller) == "to the account on it"
    assert [record.cache for record in desk.records.records] == ["", "", "exact"], "equal requests are their tenant's"
    assert desk.ask("where please do I pay the invoice", EVE) == "send the money to me"


def test_who_is_not_known_has_answers_to_equal_requests_only() -> None:
    desk = Desk()
    for number, caller in enumerate((Caller(), Caller(user="ada"), Caller(tenant="acme")), start=1):
        assert desk.ask(f"what is on my list number-{number} please", caller) == f"answer {2 * number - 1}"
        assert desk.ask(f"please what is on my list number-{number}", caller) == f"answer {2 * number}"
    assert desk.words.asked == []
    inside = Caller(tenant="acme", user="ada")
    assert desk.ask("what is on my list please", inside, api="inside") == "answer 7"
    assert desk.ask("please what is on my list", inside, api="inside") == "answer 7"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("what does order 1234 cost me today", "what does order 1235 cost me today"),
        ("is it 3 days to Rome and 5 to Oslo then", "is it 5 days to Rome and 3 to Oslo then"),
        ("may I park here at night then", "may I not park here at night then"),
        ("is it true that you can pay later", "is it true that you can't pay later"),
        ("write to ada@acme.example about the parcel of today", "write to eve@acme.example about the parcel of today"),
        ("what is in /srv/a on the first machine", "what is in /srv/b on the first machine"),
    ],
)
def test_numbers_addresses_and_negations_tell_questions_apart(first: str, second: str) -> None:
    desk = Desk(least=0.5)
    assert [desk.ask(first), desk.ask(second)] == ["answer 1", "answer 2"]
    assert desk.ask(f"{first} ok") == "answer 1", "which they would not be by their vectors"


def test_words_that_tell() -> None:
    assert telling_words('Is "order 12-b" not at +49 30 123? It\'s Ada\'s, isn\'t it...') == (
        "12-b", "not", "+49", "30", "123", "isn't",
    )  # fmt: skip
    assert telling_words("What's the well-known answer?") == ()


@given(st.text(max_size=60), st.text(max_size=60))
def test_texts_in_one_scope_have_the_same_words_that_tell(one: str, other: str) -> None:
    scopes = []
    for text in (one, other):
        request = Generation("id", "chat", (Message("user", (text,)),))
        question = question_of(request, Call(request, ADA, "chat"), "chat", "v1")
        assert (question is None) == (not text.strip())
        scopes.append(None if question is None else question.scope)
    if None not in scopes:
        assert (scopes[0] == scopes[1]) == (telling_words(one) == telling_words(other))


def test_all_but_the_last_words_is_equal_or_the_answer_is_new() -> None:
    desk = Desk()
    first, alike = "how do I return a parcel please", "please how do I return a parcel"
    told, before = Message("system", ("Be kind.",)), Message("assistant", ("Yes?",))
    said, again = Message("user", (first,)), Message("user", (alike,))
    assert desk.ask(first) == "answer 1"
    others: list[dict[str, Any]] = [
        {"messages": (told, again)},
        {"messages": (Message("user", ("Hello",)), before, again)},
        {"sampling": Sampling(temperature=0, max_tokens=3)},
        {"sampling": Sampling(temperature=0, seed=1)},
        {"prompt": "greet-2"},
        {"extra": {"language": "fr"}},
    ]
    for number, other in enumerate(others, start=2):
        assert desk.ask(alike, **other) == f"answer {number}"
    assert desk.ask(first, messages=(told, said)) == "answer 2", "of the same conversation"
    assert desk.ask(alike) == "answer 1"


def test_a_new_version_of_the_model_answers_anew() -> None:
    call = Call(Generation("id", "chat", (Message("user", ("hello",)),)), ADA, "chat")
    one, two = (question_of(call.generation, call, "chat", version) for version in ("m@1", "m@2"))
    assert one is not None
    assert two is not None
    assert one.scope != two.scope


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": (Tool("find", "finds", {"type": "object"}),)},
        {"schema": Schema({"type": "object"})},
        {"sampling": Sampling(temperature=0.7)},
        {"sampling": Sampling()},
        {"messages": (Message("user", ("how do I return a parcel please", Image(b"x", "image/png"))),)},
        {"messages": (Message("user", ("how do I",)), Message("assistant", ("return a parcel please",)))},
        {"messages": (), "prompt_text": "how do I return a parcel please"},
    ],
)
def test_trap_12_what_is_not_compared(fields: dict[str, Any]) -> None:
    desk = Desk()
    desk.engine.script = lambda request: [Start(1), Text('{"a": 1}'), End(("stop",))]
    fields = dict(fields)
    request = Generation(
        "id",
        "chat",
        **{
            "messages": (Message("user", ("how do I return a parcel please",)),),
            "sampling": GREEDY,
            "prompt": fields.pop("prompt_text", None),
            **fields,
        },
    )
    asyncio.run(desk.gateway.complete(Call(request, ADA, "chat", stream=False)))
    assert len(desk.engine.requests) == 1
    assert desk.words.asked == []


def test_a_text_beyond_what_the_embedder_reads_is_not_compared() -> None:
    desk = Desk()
    long = "word " * (Words.max_tokens + 1)
    assert desk.ask(long + "one") == "answer 1"
    assert desk.ask(long + "two") == "answer 2"
    assert desk.ask("x" * 100_000) == "answer 3"
    assert desk.words.asked == []
    assert desk.said == []


def test_an_embedder_that_fails_or_sleeps_costs_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(Words(fault=RuntimeError("no model")))
    assert desk.ask("hello there friend") == "answer 1"
    assert desk.ask("there friend hello") == "answer 2"
    assert desk.said == ["questions to language models are not compared: RuntimeError: no model"]
    monkeypatch.setattr("mainspring.llm.alike._LONGEST_S", 0.05)
    slow = Desk(Words(pause_s=0.4))
    began = time.monotonic()
    assert slow.ask("hello there friend") == "answer 1"
    assert time.monotonic() - began < 0.35
    assert slow.said == ["questions to language models are not compared: the embedder took longer than 0.05 s"]
    assert [found.records.records[0].cache for found in (desk, slow)] == ["", ""]


def test_what_was_given_again_is_not_kept_again() -> None:
    """Else likeness would drift from question to question, until an answer belongs to none of them."""
    desk = Desk(least=0.85)
    chain = ("a b c d e f g", "b c d e f g h", "c d e f g h i")
    assert [desk.ask(text) for text in chain] == ["answer 1", "answer 1", "answer 2"]


def test_a_broken_or_left_answer_and_tool_calls_are_not_kept() -> None:
    cache, vector = AlikeCache(lambda: 0.0), np.ones(4, np.float32) / 2
    whole: list[Event] = [Start(), Text("x"), End(("stop",))]
    assert not cache.put(b"s", vector, whole[:2], 10)
    assert not cache.put(b"s", vector, [Start(), Text("x"), End(("cancelled",))], 10)
    assert not cache.put(b"s", vector, [Start(), ToolDelta(0, "i", "n"), whole[-1]], 10)
    assert cache.get(b"s", vector, 0.5) is None
    assert cache.put(b"s", vector, whole, 10)
    found = cache.get(b"s", vector, 0.5)
    assert found is not None
    assert (list(found[0]), found[1]) == (whole, 1.0)
    assert (cache.hits, cache.misses) == (1, 1)


def test_it_forgets_by_time_and_by_room() -> None:
    now = [0.0]
    cache = AlikeCache(lambda: now[0], most_bytes=100_000)
    vectors = np.eye(64, dtype=np.float32)
    events: list[Event] = [Text("x" * 9_000), End(("stop",))]
    for number in range(20):
        assert cache.put(b"one" if number % 2 else b"other", vectors[number], events, 10 + number)
    kept = [number for number in range(20) if cache.get(b"one" if number % 2 else b"other", vectors[number], 0.9)]
    assert 6 <= len(kept) <= 11
    assert {18, 19} <= set(kept)
    assert not cache.put(b"one", vectors[0], [Text("x" * 50_000), events[-1]], 10), "more than an eighth of the room"
    now[0] = 40.0
    assert cache.get(b"one", vectors[19], 0.9) is None
    assert cache.get(b"other", vectors[18], 0.9) is None
    assert cache._bytes == 0
    assert cache.put(b"one", vectors[0], events, 10)
    cache.clear()
    assert cache.get(b"one", vectors[0], 0.9) is None


def test_a_scope_has_a_bound_of_its_own() -> None:
    cache = AlikeCache(lambda: 0.0)
    events: list[Event] = [Text("x"), End(("stop",))]
    vectors = np.random.default_rng(0).standard_normal((1100, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for vector in vectors:
        cache.put(b"s", vector, events, 10)
    assert cache.get(b"s", vectors[0], 0.999) is None
    assert cache.get(b"s", vectors[-1], 0.999) is not None


def test_a_gateway_that_cannot_compare_says_so() -> None:
    with pytest.raises(ConfigError) as caught:
        Gateway([route(Scripted(says("x")), cache_s=60, alike=0.9)])
    assert caught.value.code == "MS-3181"
