"""Cost, keys, the exact cache, schemas, prompts, usage, records: each alone."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_kit import Scripted, route, says
from mainspring.errors import ConfigError, UsageError
from mainspring.llm.cache import ExactCache, cache_key, cacheable
from mainspring.llm.cost import Price, PriceTable, cost_micro, most_micro
from mainspring.llm.gateway import Gateway
from mainspring.llm.keys import KeyRing, digest_of
from mainspring.llm.prompts import Alias, Prompt, PromptRegistry, PromptVariable
from mainspring.llm.schemas import SchemaBook, unsupported
from mainspring.llm.stored import Kept, StoredResponses
from mainspring.llm.values import Key
from mainspring.ports.llm import (
    End,
    Event,
    Generation,
    Message,
    Sampling,
    Schema,
    Start,
    Text,
    Tool,
    ToolChoice,
    ToolDelta,
    Usage,
)

COUNT = st.integers(0, 10**7)


@given(COUNT, COUNT, COUNT, COUNT, COUNT, st.lists(st.integers(0, 10**8), min_size=5, max_size=5))
def test_cost_is_the_formula_in_whole_numbers(
    fresh: int, cached: int, written: int, said: int, thought: int, prices: list[int]
) -> None:
    price = Price(
        provider="p", model="m", version="1",
        input=prices[0], cached_read=prices[1], cache_write=prices[2], output=prices[3], reasoning=prices[4],
    )  # fmt: skip
    usage = Usage(fresh + cached + written, said + thought, cached, written, thought)
    exact = Fraction(
        fresh * prices[0] + cached * prices[1] + written * prices[2] + said * prices[3] + thought * prices[4], 10**6
    )
    assert cost_micro(price, usage) == math.ceil(exact)
    assert cost_micro(price, usage) <= most_micro(price, usage.prompt, usage.completion)


def test_the_price_that_holds_is_the_latest_before_the_moment() -> None:
    prices = [Price(provider="p", model="m", version=str(at), valid_from_ns=at) for at in (10, 30, 20)]
    table = PriceTable(prices)
    assert [found.version if (found := table.find("p", "m", at)) else None for at in (9, 10, 25, 99)] == [
        None, "10", "20", "30",
    ]  # fmt: skip
    assert table.find("p", "other", 99) is None


def test_keys_are_kept_hashed_and_shown_nowhere() -> None:
    key = Key(id="web", digest=digest_of("s3cret-key"), tenant="acme", expires_ns=100)
    ring = KeyRing([key])
    assert ring.find(b"s3cret-key", 99) is key
    assert ring.find(b"s3cret-kez", 99) is None
    assert ring.find(b"s3cret-key", 100) is None, "expired"
    assert "s3cret" not in repr(key)
    assert key.digest.hex() not in repr(key)
    with pytest.raises(ConfigError, match="are the same"):
        KeyRing([key, key])


BASE = Generation("1", "chat", (Message("user", ("hi",)),), sampling=Sampling(temperature=0))
CHANGES: dict[str, Any] = {
    "messages": (Message("user", ("ho",)),),
    "prompt": "hi",
    "echo": True,
    "suffix": "x",
    "tools": (Tool("t"),),
    "choice": ToolChoice("none"),
    "schema": Schema({"type": "object"}),
    "extra": {"verbosity": "low"},
}
SAMPLING: dict[str, Any] = {
    "temperature": 0.5, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "seed": 1, "stop": ("x",), "max_tokens": 3, "n": 2,
    "presence_penalty": 1.0, "frequency_penalty": 1.0, "logit_bias": {5: 1.0}, "logprobs": 0,
}  # fmt: skip


def test_trap_12_every_field_that_may_change_an_answer_changes_the_cache_key() -> None:
    keys = [cache_key(BASE, "chat", "v1", "", "acme")]
    fields = set(Generation.__struct_fields__) - {"id", "model", "user", "sampling"}
    assert fields == set(CHANGES), "a new field of a request has to be part of the key"
    assert set(Sampling.__struct_fields__) == set(SAMPLING)
    for name, value in CHANGES.items():
        keys.append(cache_key(msgspec.structs.replace(BASE, **{name: value}), "chat", "v1", "", "acme"))
    for name, value in SAMPLING.items():
        sampling = msgspec.structs.replace(BASE.sampling, **{name: value})
        keys.append(cache_key(msgspec.structs.replace(BASE, sampling=sampling), "chat", "v1", "", "acme"))
    keys += [cache_key(BASE, "chat", "v2", "", "acme"), cache_key(BASE, "chat", "v1", "p1", "acme")]
    keys += [cache_key(BASE, "other", "v1", "", "acme"), cache_key(BASE, "chat", "v1", "", "umbrella")]
    assert len(set(keys)) == len(keys)
    same = msgspec.structs.replace(BASE, id="2", user="u2")
    assert cache_key(same, "chat", "v1", "", "acme") == keys[0]


def test_trap_12_what_is_not_cached() -> None:
    assert cacheable(BASE, sampled=False)
    for temperature in (None, 0.5):
        drawn = msgspec.structs.replace(BASE, sampling=Sampling(temperature=temperature))
        assert not cacheable(drawn, sampled=False)
        assert cacheable(drawn, sampled=True)
    cache = ExactCache(lambda: 0.0)
    whole: list[Event] = [Start(), Text("x"), End(("stop",), Usage(1, 1))]
    assert cache.put(b"1", whole, 10)
    assert not cache.put(b"2", [Start(), Text("x"), ToolDelta(0, "i", "n"), whole[-1]], 10), "a tool call"
    assert not cache.put(b"3", [Start(), Text("x")], 10), "broken off"
    assert not cache.put(b"4", [Start(), Text("x"), End(("cancelled",))], 10), "given up"


def test_the_cache_forgets_by_time_and_by_room() -> None:
    now = [0.0]
    cache = ExactCache(lambda: now[0], most_bytes=100_000)
    events: list[Event] = [Text("x" * 10_000), End(("stop",), Usage(1, 1))]
    for number in range(20):
        assert cache.put(b"%d" % number, events, 10)
    assert sum(cache.get(b"%d" % number) is not None for number in range(20)) in range(8, 11)
    assert cache.get(b"19") is not None
    assert not cache.put(b"big", [Text("x" * 50_000), events[-1]], 10)
    now[0] = 11.0
    assert cache.get(b"19") is None


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"not": {}}, "/not"),
        ({"properties": {"a": {"if": {}}}}, "/properties/a/if"),
        ({"anyOf": [{}, {"uniqueItems": True}]}, "/anyOf/1/uniqueItems"),
        ({"$ref": "https://example.org/s.json"}, "/$ref"),
        ({"$ref": "file:///etc/passwd"}, "/$ref"),
    ],
)
def test_trap_9_keywords_that_cannot_be_forced_are_refused_by_place(schema: dict[str, Any], place: str) -> None:
    fault = unsupported(schema)
    assert fault is not None
    assert fault.startswith(place)
    assert SchemaBook().fault(schema, forced=True) == fault


def test_schemas_are_checked_and_answers_held_to_them() -> None:
    book = SchemaBook()
    schema = {
        "type": "object",
        "properties": {"not": {"type": "integer"}, "if": {"enum": [{"not": 1}]}},
        "required": ["not"],
    }
    assert book.fault(schema, forced=True) is None, "a property may have a keyword's name"
    assert book.misfit(schema, '{"not": 1}') is None
    assert "at /not" in (book.misfit(schema, '{"not": "one"}') or "")
    assert book.misfit(schema, '{"not": 1') == "it is not valid JSON"
    assert book.misfit(None, "[1]") == "it is no JSON object"
    assert book.fault({"type": "objekt"}, forced=False) is not None
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"items": deep}
    assert "deeper" in (book.fault(deep, forced=True) or "")


PROMPT = Prompt(
    name="greet",
    system="You serve {{ shop }}.",
    template="Greet {{ who }}{% if times > 1 %} {{ times }} times{% endif %}.",
    variables=(PromptVariable("shop", default="us"), PromptVariable("who"), PromptVariable("times", "int", 1)),
    temperature=0.2,
)


def test_a_prompt_is_rendered_with_typed_variables_and_its_values() -> None:
    registry = PromptRegistry([PROMPT])
    found = registry.request(registry.find("greet"), {"who": "{{ shop }}<b>", "times": 2}, Generation("1", "chat"))
    assert [message.text for message in found.messages] == ["You serve us.", "Greet {{ shop }}<b> 2 times."]
    assert found.sampling.temperature == 0.2
    for variables, why in (({}, "missing"), ({"who": 3}, "should be a str"), ({"who": "x", "y": 1}, "not declared")):
        with pytest.raises(UsageError) as error:
            registry.render(PROMPT, variables)
        assert why in error.value.why
    with pytest.raises(UsageError, match="does not fit"):
        registry.render(PROMPT, {"who": "x", "times": True})


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{{ x.y.z }}",
    ],
)
def test_trap_6_hostile_templates_stay_in_the_sandbox(template: str) -> None:
    prompt = Prompt(name="bad", template=template, variables=(PromptVariable("x", "dict"),))
    with pytest.raises((UsageError, ConfigError)):
        PromptRegistry([prompt]).render(prompt, {"x": {}})


def test_a_template_with_an_undeclared_variable_is_no_prompt() -> None:
    with pytest.raises(ConfigError, match="does not declare: who"):
        PromptRegistry([Prompt(name="p", template="{{ who }}")])


def test_the_id_is_the_hash_of_everything() -> None:
    changed = [
        msgspec.structs.replace(PROMPT, **{name: value})
        for name, value in {
            "name": "x", "template": "x", "system": "x", "variables": (), "model": "m", "temperature": 0.3,
            "max_tokens": 3, "schema": {"type": "object"},
        }.items()
    ]  # fmt: skip
    assert set(Prompt.__struct_fields__) == {
        "name", "template", "system", "variables", "model", "temperature", "max_tokens", "schema",
    }  # fmt: skip
    assert len({PROMPT.id, *(prompt.id for prompt in changed)}) == 1 + len(changed)
    assert msgspec.structs.replace(PROMPT).id == PROMPT.id


def test_aliases_split_users() -> None:
    second = msgspec.structs.replace(PROMPT, temperature=0.9)
    registry = PromptRegistry([PROMPT, second])
    assert registry.find("greet").id == second.id, "the latest, until prod is set"
    registry.take([Alias("greet", "prod", PROMPT.id)])
    assert registry.find("greet").id == PROMPT.id
    registry.take([Alias("greet", "prod", PROMPT.id, 0.8), Alias("greet", "prod", second.id, 0.2)])
    found = [registry.find("greet", "prod", f"user{n}").id for n in range(500)]
    assert found == [registry.find("greet", "prod", f"user{n}").id for n in range(500)]
    assert 50 < found.count(second.id) < 150
    with pytest.raises(UsageError, match="are not 1 together"):
        registry.take([Alias("greet", "prod", PROMPT.id, 0.5)])
    with pytest.raises(UsageError, match="has no version"):
        registry.take([Alias("greet", "prod", "nope")])


def test_routes_that_do_not_fit_together_are_refused() -> None:
    engine = Scripted(says("x"))
    for routes, what in (
        ([route(engine), route(engine)], "one name"),
        ([route(engine, fallback=("none",))], "leads to 'none'"),
        ([route(engine, split=(("chat", 0.6), ("chat", 0.6)))], "more than 1"),
    ):
        with pytest.raises(ConfigError, match=what):
            Gateway(routes)


def test_kept_responses_outlive_a_restart_and_are_their_tenants_alone(tmp_path: Path) -> None:
    now = [1000.0]

    async def scenario() -> None:
        kept = Kept("resp_1", "acme", b'{"a":1}', (Message("user", ("hi",)), Message("assistant", ("ho",))))
        stored = StoredResponses(tmp_path / "responses.db", lambda: now[0], 60)
        stored.put(kept)
        assert await stored.get("resp_1", "acme") == kept, "before it is on the disk"
        await asyncio.sleep(0)
        stored.close()
        again = StoredResponses(tmp_path / "responses.db", lambda: now[0], 60)
        assert await again.get("resp_1", "acme") == kept
        assert await again.get("resp_1", "umbrella") is None
        assert not await again.delete("resp_1", "umbrella")
        assert await again.delete("resp_1", "acme")
        assert await again.get("resp_1", "acme") is None
        again.put(kept)
        again.close()
        now[0] = 1061.0
        last = StoredResponses(tmp_path / "responses.db", lambda: now[0], 60)
        assert await last.get("resp_1", "acme") is None, "expired"
        last.close()

    asyncio.run(scenario())
    assert sqlite3.connect(tmp_path / "responses.db").execute("select count(*) from response").fetchone() == (1,)
