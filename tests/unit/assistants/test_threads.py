"""Threads: memory, owners, approvals, erasing."""

import asyncio

import pytest

from assistants_kit import ADA, BOB, all_of, asked, assistant, of_type, sqlite, tool
from mainspring.assistants.events import End, Interrupt, Text, ToolResult, fold
from mainspring.declare.identity import Identity
from mainspring.errors import ConfigError, RefusedError, UsageError
from mainspring.testing import Call, Script


def code_of(work):
    with pytest.raises((UsageError, RefusedError)) as caught:
        asyncio.run(work)
    assert caught.value.fix
    return caught.value.code


async def say(service, text, thread, caller=ADA, **more):
    return await all_of(service.run(asked(text, thread, **more), caller))


def waiting_assistant(tmp_path, turns, made, **options):
    def refund(arguments, caller):
        made.append((arguments.decode(), caller.user))
        return "refunded"

    return assistant(turns, usables=[tool(refund, approve=True)], pages=None, threads=sqlite(tmp_path), **options)


# -- memory -----------------------------------------------------------------------------------------------------------


def test_a_thread_remembers_and_shows_old_citations_to_nobody(tmp_path):
    service, script = assistant(
        ["Within 30 days of delivery [1].", "Two days [1]."], threads=sqlite(tmp_path), keep_us=None
    )

    async def go():
        thread = (await service.create_thread(ADA)).thread_id
        await say(service, "When may goods be returned?", thread)
        await say(service, "How long does delivery take?", thread)
        return await service.thread(thread, ADA)

    view = asyncio.run(go())
    assert [(remark.role, remark.text) for remark in view.messages] == [
        ("user", "When may goods be returned?"),
        ("assistant", "Within 30 days of delivery [1]."),
        ("user", "How long does delivery take?"),
        ("assistant", "Two days [1]."),
    ]
    second = script.requests[1].messages
    assert [message.role for message in second] == ["system", "user", "assistant", "user"]
    assert second[2].text == "Within 30 days of delivery."
    assert "<sources" not in second[1].text
    assert "<sources" in second[3].text


def test_the_thread_keeps_what_was_sent_not_what_was_taken_out(tmp_path):
    service, _ = assistant(["Within 30 days [9]."], threads=sqlite(tmp_path))

    async def go():
        thread = (await service.create_thread(ADA)).thread_id
        events = await say(service, "When may goods be returned?", thread)
        return events, await service.thread(thread, ADA)

    events, view = asyncio.run(go())
    assert view.messages[-1].text == fold(events).text == "Within 30 days."


def test_a_thread_outlives_the_process(tmp_path):
    first, _ = assistant(["I am fine."], threads=sqlite(tmp_path), pages=None)

    async def begin():
        thread = (await first.create_thread(ADA)).thread_id
        await say(first, "How are you?", thread)
        return thread

    thread = asyncio.run(begin())
    second, script = assistant(["Fine, as I said."], threads=sqlite(tmp_path), pages=None)
    asyncio.run(say(second, "And now?", thread))
    assert [message.text for message in script.requests[0].messages] == ["How are you?", "I am fine.", "And now?"]


def test_identity_sources_and_client_instructions_are_in_no_checkpoint(tmp_path):
    service, _ = assistant(["Within 30 days [1]."], threads=sqlite(tmp_path))
    caller = Identity("ada", ("staff", "group-that-nobody-should-find"))

    async def go():
        thread = (await service.create_thread(caller)).thread_id
        await say(service, "When may goods be returned?", thread, caller, system="be-brief-for-this-client")

    asyncio.run(go())
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"When may goods" in kept
    for secret in (b"group-that-nobody", b"30 days of delivery", b"be-brief-for"):
        assert secret not in kept


def test_a_stopped_call_is_answered_for_the_next_request(tmp_path):
    async def hangs(arguments, caller):
        asyncio.get_running_loop().call_soon(service._running.cancel, "r", ADA)
        await asyncio.sleep(60)

    usable = tool(lambda a, c: None)
    usable = type(usable)(usable.name, usable.description, usable.schema, hangs)
    service, script = assistant(
        [Call("refund", {"order_id": 1}), "Hello."], usables=[usable], pages=None, threads=sqlite(tmp_path)
    )

    async def go():
        thread = (await service.create_thread(ADA)).thread_id
        stopped = await say(service, "Refund 1.", thread, run="r")
        return stopped[-1], (await say(service, "Never mind.", thread))[-1]

    stopped, last = asyncio.run(go())
    assert (stopped.reason, last.reason) == ("cancelled", "stop")
    roles = [message.role for message in script.requests[1].messages]
    assert roles == ["user", "assistant", "tool", "user"]


# -- owners -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [BOB, Identity("ada", tenant="t"), Identity()])
def test_nobody_else_reaches_a_thread(tmp_path, other):
    made = []
    service, _ = waiting_assistant(tmp_path, [Call("refund", {"order_id": 1}), "Done."], made)

    async def begin():
        thread = (await service.create_thread(ADA)).thread_id
        events = await say(service, "Refund 1.", thread)
        return thread, events[-1].id

    thread, interrupt = asyncio.run(begin())
    approve = [{"type": "approve"}]
    for work in (
        service.thread(thread, other),
        service.delete_thread(thread, other),
        say(service, "Hello", thread, other),
        all_of(service.resume(thread, interrupt, approve, other)),
    ):
        assert code_of(work) == "MS-2511"
    assert asyncio.run(service.export(other)) == []
    assert asyncio.run(service.erase(other)) == 0
    assert made == []
    assert asyncio.run(service.thread(thread, ADA)).interrupt is not None


def test_export_and_erase_are_an_owners(tmp_path):
    service, _ = assistant(["One.", "Two.", "Three."], threads=sqlite(tmp_path), pages=None)

    async def go():
        for caller, text in ((ADA, "a"), (ADA, "b"), (BOB, "c")):
            await say(service, text, (await service.create_thread(caller)).thread_id, caller)
        before = await service.export(ADA)
        gone = await service.erase(ADA)
        return before, gone, await service.export(ADA), await service.export(BOB)

    before, gone, after, others = asyncio.run(go())
    assert [[remark.text for remark in view.messages] for view in before] == [["b", "Two."], ["a", "One."]]
    assert (gone, after) == (2, [])
    assert [[remark.text for remark in view.messages] for view in others] == [["c", "Three."]]


def test_a_thread_that_nobody_uses_ends(tmp_path):
    service, _ = assistant(["One."], threads=sqlite(tmp_path), pages=None, keep_us=100_000)

    async def go():
        used = (await service.create_thread(ADA)).thread_id
        unused = (await service.create_thread(ADA)).thread_id
        for _ in range(90):
            service._parts.now()
        await say(service, "a", used)
        for _ in range(20):
            service._parts.now()
        with pytest.raises(UsageError):
            await service.thread(unused, ADA)
        return await service.sweep(), [view.thread.thread_id == used for view in await service.export(ADA)]

    assert asyncio.run(go()) == (1, [True])


def test_a_thread_has_one_run_at_a_time(tmp_path):
    service, _ = assistant(Script(lambda request: ["Slow ", 0.3, "words."]), threads=sqlite(tmp_path), pages=None)

    async def go():
        thread = (await service.create_thread(ADA)).thread_id
        first = service.run(asked("a", thread), ADA)
        await anext(first)
        with pytest.raises(RefusedError) as caught:
            await say(service, "b", thread)
        rest = [event async for event in first]
        return caught.value.code, rest[-1], (await say(service, "b", thread))[-1]

    code, first, second = asyncio.run(go())
    assert code == "MS-5061"
    assert isinstance(first, End)
    assert isinstance(second, End)


def test_an_assistant_without_a_store_has_no_threads():
    service, _ = assistant(["x"])
    assert code_of(service.create_thread(ADA)) == "MS-2514"
    with pytest.raises(ConfigError, match="nowhere to wait"):
        assistant(["x"], usables=[tool(lambda a, c: "ok", approve=True)])


# -- approvals --------------------------------------------------------------------------------------------------------


def waits(tmp_path, turns, made, question="Refund 1."):
    service, script = waiting_assistant(tmp_path, turns, made)

    async def begin():
        thread = (await service.create_thread(ADA)).thread_id
        return thread, await say(service, question, thread)

    thread, events = asyncio.run(begin())
    assert isinstance(events[-1], Interrupt)
    assert made == []
    return service, script, thread, events[-1]


def test_what_is_waited_for(tmp_path):
    service, _, thread, waiting = waits(tmp_path, [Call("refund", {"order_id": 1})], [])
    assert waiting.action_requests == ({"name": "refund", "args": {"order_id": 1}, "description": "Does refund."},)
    (config,) = waiting.review_configs
    assert config["action_name"] == "refund"
    assert set(config["allowed_decisions"]) == {"approve", "edit", "reject", "respond"}
    seen = asyncio.run(service.thread(thread, ADA)).interrupt
    assert (seen.id, seen.action_requests, seen.thread) == (waiting.id, waiting.action_requests, thread)


DECISIONS = {
    "approve": ({"type": "approve"}, [('{"order_id":1}', "ada")], "ok", "refunded"),
    "edit": (
        {"type": "edit", "edited_action": {"name": "refund", "args": {"order_id": 2}}},
        [('{"order_id":2}', "ada")],
        "ok",
        "refunded",
    ),
    "reject": ({"type": "reject", "message": "too dear"}, [], "refused", "too dear"),
    "respond": ({"type": "respond", "message": "It is done by hand."}, [], "ok", "It is done by hand."),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_each_decision_is_carried_out(tmp_path, name):
    decision, calls, status, said = DECISIONS[name]
    made = []
    service, script, thread, waiting = waits(tmp_path, [Call("refund", {"order_id": 1}), "Done."], made)
    events = asyncio.run(all_of(service.resume(thread, waiting.id, [decision], ADA)))
    assert made == calls
    (result,) = of_type(events, ToolResult)
    assert result.status == status
    assert said in result.content
    assert said in script.requests[1].messages[-1].text
    assert "".join(event.text for event in of_type(events, Text)) == "Done."
    assert code_of(all_of(service.resume(thread, waiting.id, [decision], ADA))) == "MS-2512"
    assert made == calls


@pytest.mark.parametrize(
    "decisions",
    [
        [],
        [{"type": "approve"}, {"type": "approve"}],
        [{"type": "burn"}],
        ["approve"],
        [{"type": "edit"}],
        [{"type": "edit", "edited_action": {"name": "other", "args": {}}}],
        [{"type": "edit", "edited_action": {"name": "refund", "args": "x"}}],
        [{"type": "respond"}],
        [{"type": "reject", "message": 3}],
    ],
)
def test_decisions_that_do_not_fit_change_nothing(tmp_path, decisions):
    made = []
    service, _, thread, waiting = waits(tmp_path, [Call("refund", {"order_id": 1}), "Done."], made)
    assert code_of(all_of(service.resume(thread, waiting.id, decisions, ADA))) == "MS-2513"
    assert code_of(all_of(service.resume(thread, "other", [{"type": "approve"}], ADA))) == "MS-2512"
    assert code_of(say(service, "Hello?", thread)) == "MS-5062"
    assert made == []
    asyncio.run(all_of(service.resume(thread, waiting.id, [{"type": "approve"}], ADA)))
    assert len(made) == 1


def test_several_calls_are_decided_in_order(tmp_path):
    made = []
    calls = [Call("refund", {"order_id": n}, id=f"c{n}") for n in (1, 2, 3)]
    service, _, thread, waiting = waits(tmp_path, [calls, "Done."], made)
    decisions = [{"type": "approve"}, {"type": "reject"}, {"type": "approve"}]
    asyncio.run(all_of(service.resume(thread, waiting.id, decisions, ADA)))
    assert sorted(made) == [('{"order_id":1}', "ada"), ('{"order_id":3}', "ada")]


def test_a_run_without_a_thread_is_given_one_to_wait_in(tmp_path):
    made = []
    service, _ = waiting_assistant(tmp_path, [Call("refund", {"order_id": 1}), "Done.", "Hello."], made)
    events = asyncio.run(say(service, "Refund 1.", ""))
    waiting = events[-1]
    assert waiting.thread
    assert events[0].thread == waiting.thread
    asyncio.run(all_of(service.resume(waiting.thread, waiting.id, [{"type": "approve"}], ADA)))
    assert len(made) == 1
    asyncio.run(say(service, "Hello", ""))
    assert len(asyncio.run(service.export(ADA))) == 1, "a run that waits for nothing leaves no thread"


def test_the_rights_at_the_time_of_the_approval_count(tmp_path):
    made = []
    service, _ = assistant(
        [Call("refund", {"order_id": 1}), "Sorry."],
        usables=[tool(lambda a, c: made.append(1) or "ok", approve=True, allow=("group:staff",))],
        pages=None,
        threads=sqlite(tmp_path),
    )

    async def go():
        thread = (await service.create_thread(ADA)).thread_id
        waiting = (await say(service, "Refund 1.", thread))[-1]
        return await all_of(service.resume(thread, waiting.id, [{"type": "approve"}], Identity("ada")))

    (result,) = of_type(asyncio.run(go()), ToolResult)
    assert (result.status, made) == ("refused", [])
