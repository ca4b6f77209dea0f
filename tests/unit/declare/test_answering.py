"""What an app declares to answer in words."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Literal

import msgspec
import pytest

from mainspring import App, Entity, Field, Guard, Identity, Record, last
from mainspring.declare.declaration import kind_of, name_of, spec_of
from mainspring.declare.signature import signature_of
from mainspring.errors import DeclarationError
from mainspring.plan.build import build_plan
from mainspring.server.planning import needed_ports


def code_of(action) -> str:
    with pytest.raises(DeclarationError) as caught:
        action()
    assert caught.value.origin.startswith("test_answering.py:"), caught.value.origin
    assert caught.value.fix
    return caught.value.code


def support() -> App:
    """The second program of the design, as written there."""
    app = App("support")
    llm = app.llm("chat")
    manuals = app.documents("manuals/", every="1h")
    library = app.index(manuals)

    @app.tool
    def order_status(order_id: int) -> str:
        """Where an order is now."""
        return f"order {order_id} is on its way"

    help_desk = app.assistant(
        "help_desk",
        llm,
        knows=[library],
        may=[order_status],
        instructions="Answer from the manuals and name the source. If they do not say, say so.",
    )

    @app.evaluation(help_desk, cases="evals/questions.jsonl")
    def grounded(answer, case) -> bool:
        return case["must_cite"] in answer.sources

    app.endpoint(help_desk)
    app.monitor(help_desk, watch=["grounded", "latency", "cost"])
    app.bind(locals())
    return app


def test_the_second_example_of_the_design_is_accepted() -> None:
    plan = build_plan(support())
    assert {node.url for node in plan.nodes} == {
        "/llm/chat",
        "/documents/manuals",
        "/index/library",
        "/tool/order_status",
        "/assistant/help_desk",
        "/evaluation/grounded",
        "/endpoint/help_desk",
        "/monitor/help_desk",
    }
    assistant = plan.node("/assistant/help_desk")
    assert assistant is not None
    assert assistant.inputs == ("/llm/chat", "/index/library", "/tool/order_status")
    assert plan.of_kind("endpoint", over="model") == ()
    assert [node.name for node in plan.of_kind("endpoint", over="assistant")] == ["help_desk"]


def test_a_change_below_reaches_what_is_above() -> None:
    before = {node.url: node.fingerprint for node in build_plan(support()).nodes}
    other = support()
    found = next(item for item in other.declared() if kind_of(item).value == "documents")
    msgspec.structs.force_setattr(spec_of(found), "include", ("**/*.md",))
    after = {node.url: node.fingerprint for node in build_plan(other).nodes}
    changed = {url for url in before if before[url] != after[url]}
    assert changed == {
        "/documents/manuals",
        "/index/library",
        "/assistant/help_desk",
        "/evaluation/grounded",
        "/endpoint/help_desk",
        "/monitor/help_desk",
    }


def test_a_tool_is_still_the_function() -> None:
    app = App("a")

    @app.tool(approve=True, timeout="5s", allow=["group:staff"])
    async def refund(order_id: int, cents: int = 0) -> str:
        """Give money back.

        Args:
            order_id: the order's number.
            cents: how much,
                in cents.
        """
        return f"{order_id}: {cents}"

    assert asyncio.run(refund(3, cents=5)) == "3: 5"
    spec = spec_of(refund)
    assert (name_of(refund), spec.approve, spec.timeout_us, spec.allow) == ("refund", True, 5_000_000, ("group:staff",))
    assert spec.signature.description == "Give money back."
    assert spec.signature.schema == {
        "type": "object",
        "properties": {
            "order_id": {"type": "integer", "description": "the order's number."},
            "cents": {"type": "integer", "description": "how much, in cents.", "default": 0},
        },
        "required": ["order_id"],
        "additionalProperties": False,
    }


def test_arguments_are_checked_and_the_caller_is_not_the_models_to_name() -> None:
    def orders(since: datetime, state: Literal["open", "done"], caller: Identity, limit: int = 5) -> list[str]:
        """Orders of the caller."""
        return []

    signature = signature_of(orders)
    assert "caller" not in signature.schema["properties"]
    ada = Identity("ada", ("staff",))
    given = signature.arguments('{"since": "2026-01-02T03:04:05Z", "state": "open"}', ada)
    assert given["caller"] is ada
    assert (given["state"], given["limit"], given["since"].year) == ("open", 5, 2026)
    for wrong in (
        '{"since": "2026-01-02T03:04:05Z", "state": "lost"}',
        '{"since": "2026-01-02T03:04:05Z", "state": "open", "caller": {"user": "eve"}}',
        '{"since": "2026-01-02T03:04:05Z"}',
        '{"since": "2026',
    ):
        with pytest.raises((msgspec.ValidationError, msgspec.DecodeError)):
            signature.arguments(wrong, ada)


def test_annotated_limits_are_in_the_schema() -> None:
    def search(words: Annotated[str, msgspec.Meta(min_length=2)]) -> str:
        """Search."""
        return words

    assert signature_of(search).schema["properties"] == {"words": {"type": "string", "minLength": 2}}


def test_identity_gives_principals() -> None:
    assert Identity().principals == ("public",)
    assert Identity("ada", ("b", "a"), "t").principals == ("group:a", "group:b", "public", "user:ada")


def test_mistakes_of_tools() -> None:
    app = App("a")

    def silent(x: int) -> int:
        return x

    def untyped(x) -> int:
        """Doc."""
        return x

    def strange(x: complex) -> int:
        """Doc."""
        return 1

    def packed(*x: int) -> int:
        """Doc."""
        return 1

    def unknown(x: Nowhere) -> int:  # noqa: F821
        """Doc."""
        return 1

    assert code_of(lambda: app.tool(silent)) == "MS-1042"
    for function in (untyped, strange, packed, unknown):
        assert code_of(lambda function=function: app.tool(function)) == "MS-1043"
    assert code_of(lambda: app.tool("orders")) == "MS-1033"
    assert code_of(lambda: app.tool(approve="yes")) == "MS-1033"
    assert code_of(lambda: app.tool(allow="group:staff")) == "MS-1036"


def test_mistakes_of_language_models() -> None:
    app = App("a")
    chat, canary = app.llm("chat"), app.llm("canary")
    assert code_of(lambda: app.llm("two words")) == "MS-1045"
    assert code_of(lambda: app.llm("x", needs=["legs"])) == "MS-1034"
    assert code_of(lambda: app.llm("x", max_tokens=0)) == "MS-1035"
    assert code_of(lambda: chat.route("canary")) == "MS-1033"
    assert code_of(lambda: chat.route(split={canary: 0.7, chat: 0.6})) == "MS-1044"
    assert code_of(lambda: app.prompt("{{ x }}", variables={"x": {1, 2}})) == "MS-1046"


def test_a_route_names_every_model_once() -> None:
    app = App("a")
    chat, canary, backup = app.llm("chat"), app.llm("canary"), app.llm("backup")
    route = chat.route(backup, canary, split={canary: 0.1}, cache="1h", called="support")
    assert spec_of(route).models == (chat, canary, backup)
    assert spec_of(route).cache_us == 3_600_000_000
    node = build_plan(app).node("/route/support")
    assert node is not None
    assert node.spec["split"] == {"canary": 0.1}
    assert node.inputs == ("/llm/chat", "/llm/canary", "/llm/backup")


def test_a_route_over_several_models_at_once() -> None:
    app = App("a")
    chat, twin, backup = app.llm("chat"), app.llm("twin"), app.llm("backup")
    route = chat.route(backup, beside=[twin], hedge="2s", called="support")
    assert spec_of(route).models == (chat, twin, backup)
    node = build_plan(app).node("/route/support")
    assert node is not None
    assert (node.spec["beside"], node.spec["hedge"]) == (["twin"], "2s")
    assert code_of(lambda: chat.route(beside=["twin"])) == "MS-1033"
    assert code_of(lambda: chat.route(beside=[twin, chat])) == "MS-3130"
    assert code_of(lambda: chat.route(beside=[twin, twin])) == "MS-3130"
    assert code_of(lambda: chat.route(backup, hedge="2s")) == "MS-3131"


def test_a_route_that_answers_alike_questions_from_its_cache() -> None:
    app = App("a")
    chat = app.llm("chat")
    route = chat.route(cache="1h", alike=0.95, called="support")
    assert spec_of(route).alike == 0.95
    node = build_plan(app).node("/route/support")
    assert node is not None
    assert node.spec["alike"] == 0.95
    assert "embedder" in needed_ports(build_plan(app))
    assert "embedder" not in needed_ports(build_plan(App("b")))
    assert code_of(lambda: chat.route(alike=0.95)) == "MS-3180"
    assert code_of(lambda: chat.route(cache="1h", alike=0)) == "MS-3180"
    assert code_of(lambda: chat.route(cache="1h", alike=1.5)) == "MS-3180"
    assert code_of(lambda: chat.route(cache="1h", alike=float("nan"))) == "MS-1035"
    assert code_of(lambda: chat.route(cache="1h", alike=True)) == "MS-1035"


def test_a_guard_is_part_of_what_a_model_is() -> None:
    def spec(*guards: Guard) -> object:
        app = App("a")
        app.llm("chat", guards=guards)
        node = build_plan(app).node("/llm/chat")
        assert node is not None
        return node.spec

    assert spec() != spec(Guard("cards", "[0-9]{16}")) != spec(Guard("cards", "[0-9]{15}"))


def test_a_prompt_knows_its_variables() -> None:
    app = App("a")
    prompt = app.prompt("{{ city }} in {{days}} days, {{- tone }}", variables={"days": 3}, called="trip")
    assert [(v.name, v.type, v.default) for v in spec_of(prompt).variables] == [
        ("city", str, None),
        ("days", int, 3),
        ("tone", str, None),
    ]


def test_mistakes_of_documents_indexes_and_assistants() -> None:
    app = App("a")
    chat = app.llm("chat")
    manuals = app.documents("manuals/", access=["group:staff"], called="manuals")
    library = app.index(manuals, called="library")
    assert code_of(lambda: app.documents("../secret")) == "MS-1047"
    assert code_of(lambda: app.documents("m", include="*.md")) == "MS-1036"
    assert code_of(lambda: app.index()) == "MS-1048"
    assert code_of(lambda: app.index("manuals")) == "MS-1033"
    assert code_of(lambda: app.index(manuals, mode="fuzzy")) == "MS-1034"
    assert code_of(lambda: app.index(manuals, language="klingon")) == "MS-1034"
    assert code_of(lambda: app.index(manuals, tokens=3)) == "MS-1035"
    assert code_of(lambda: app.assistant("a b", chat)) == "MS-1045"
    assert code_of(lambda: app.assistant("a", "chat")) == "MS-1033"
    assert code_of(lambda: app.assistant("a", chat, knows=[manuals])) == "MS-1033"
    assert code_of(lambda: app.assistant("a", chat, may=[library])) == "MS-1033"
    assert code_of(lambda: app.evaluation(chat, cases="x")) == "MS-1033"
    assert code_of(lambda: app.evaluation(library, cases="x")(lambda answer: True)) == "MS-1029"
    assert code_of(lambda: app.monitor(library)) == "MS-1033"


def test_what_only_the_whole_shows() -> None:
    app = App("a")
    chat = app.llm("chat")

    class Weather(Record):
        origin: str
        wind: float | None = Field(ge=0)
        observed: datetime

    weather = app.source(Weather, time="observed", called="weather")
    wind = app.features(weather, entity=Entity("origin"), called="status", now=last("wind"))

    @app.tool
    def status() -> str:
        """How it is."""
        return "well"

    app.assistant("twice", chat, may=[status, wind])
    assert code_of(lambda: build_plan(app)) == "MS-1049"

    app = App("b")
    helper = app.assistant("helper", app.llm("chat"))
    app.monitor(helper, watch=["grounded"])
    assert code_of(lambda: build_plan(app)) == "MS-1109"
