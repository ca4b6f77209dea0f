"""Tools of MCP servers outside, against a real server: over stdio and over streamable HTTP, alive, dying and dead."""

import asyncio
import contextlib
import http.server
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from assistants_kit import ADA, BOB, all_of, asked, assistant, of_type, sqlite
from mainspring.assistants.calling import carry_out
from mainspring.assistants.events import Interrupt, Text, ToolResult
from mainspring.assistants.outside import OutsideServer, open_outside, tool_name
from mainspring.errors import ConfigError
from mainspring.testing import Call

SERVER = str(Path(__file__).parents[1] / "mcp_tickets.py")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(port):
    """The server over HTTP, from when it listens until the block ends."""
    process = subprocess.Popen([sys.executable, SERVER, str(port)], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, "the server has left"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def over_stdio(*tools, **options):
    return OutsideServer("tickets", tools, command=(sys.executable, SERVER), **options)


def over_http(port, *tools, **options):
    return OutsideServer("tickets", tools, url=f"http://127.0.0.1:{port}/mcp", **options)


@contextlib.asynccontextmanager
async def opened(server, told=None):
    outside = open_outside(server, (told if told is not None else []).append)
    outside.start()
    try:
        yield outside
    finally:
        await outside.close()


async def outcome(outside, name, arguments=b"{}"):
    (usable,) = [usable for usable in outside.usables() if usable.name == name]
    return await carry_out(usable, arguments, ADA, None, "")


async def asks_all(outside):
    """What both transports must do alike."""
    await outside.ready()
    find, close, *_ = outside.usables()
    assert (find.name, find.description.partition("\n")[0]) == ("tickets_find", "Finds tickets with a word in them.")
    assert find.schema["required"] == ["word"]
    assert [usable.name for usable in outside.usables()] == ["tickets_find", "tickets_close", "tickets_given"]
    assert (close.approve, close.allowed(ADA), close.allowed(BOB)) == (True, True, False)
    assert not find.approve
    found = await outcome(outside, "tickets_find", b'{"word": "pumps"}')
    assert (found.status, found.text) == ("ok", "ticket 7 speaks of pumps")
    closed = await outcome(outside, "tickets_close", b'{"ticket": 7}')
    assert closed.status == "ok"
    assert '"state": "closed"' in closed.text
    failed = await outcome(outside, "tickets_close", b'{"ticket": 101}')
    assert failed.status == "error"
    assert "there is no ticket 101" in failed.text, "the model may do better when it is told"
    wrong = await outcome(outside, "tickets_find", b'{"sentence": 1}')
    assert wrong.status == "error"
    given = await outcome(outside, "tickets_given")
    assert "Bearer abc" in given.text
    assert "not yours" not in given.text


def test_a_program_over_stdio_is_given_its_own_variables_and_none_of_ours(monkeypatch):
    monkeypatch.setenv("NOT_FOR_IT", "not yours")

    async def go():
        server = over_stdio(
            "find",
            "close",
            "given",
            environment={"TICKETS_TOKEN": "Bearer abc"},
            approve=("close",),
            allow=("group:staff",),
        )
        assert "Bearer abc" not in repr(server)
        async with opened(server) as outside:
            await asks_all(outside)

    asyncio.run(go())


def test_a_server_over_http_is_sent_its_headers():
    port = free_port()

    async def go():
        server = over_http(
            port,
            "find",
            "close",
            "given",
            headers={"Authorization": "Bearer abc"},
            approve=("close",),
            allow=("group:staff",),
        )
        async with opened(server) as outside:
            await asks_all(outside)

    with running(port):
        asyncio.run(go())


def test_a_tool_that_the_server_has_not_is_told_and_shown_to_nobody():
    async def go():
        told = []
        async with opened(over_stdio("find", "cloze"), told) as outside:
            with pytest.raises(ConfigError) as refused:
                await outside.ready()
            assert refused.value.code == "MS-3063"
            assert "close, find, given, leave, wait" in refused.value.why
            assert [usable.name for usable in outside.usables()] == ["tickets_find"]
            assert (await outcome(outside, "tickets_find", b'{"word": "x"}')).status == "ok"
        assert len(told) == 1
        assert "'cloze'" in told[0]

    asyncio.run(go())


@pytest.mark.slow
def test_a_server_that_is_down_is_a_tool_s_error_and_used_again_when_it_is_back():
    port = free_port()

    async def go():
        told = []
        async with opened(over_http(port, "find", timeout=20.0), told) as outside:
            await outside.ready()  # down is no error here
            assert len(told) == 1
            assert "MS-4304" in told[0]
            (usable,) = outside.usables()
            assert (usable.name, usable.schema["type"]) == ("tickets_find", "object")
            down = await outcome(outside, "tickets_find", b'{"word": "a"}')
            assert (down.status, down.text) == ("error", "The tool failed: MCP server 'tickets' does not answer.")
            before = outside.revision
            for word in ("b", "c"):  # it comes, leaves, and comes again
                with running(port):
                    found = await outcome(outside, "tickets_find", b'{"word": "%s"}' % word.encode())
                    assert (found.status, found.text) == ("ok", f"ticket 7 speaks of {word}"), found
                assert (await outcome(outside, "tickets_find", b'{"word": "d"}')).status == "error"
            assert outside.revision == before + 1
            assert outside.usables()[0].schema["required"] == ["word"], "once known it stays known"

    asyncio.run(go())


def test_a_program_that_dies_in_a_call_is_started_again_for_the_next():
    async def go():
        async with opened(over_stdio("find", "leave")) as outside:
            await outside.ready()
            started = time.monotonic()
            died = await outcome(outside, "tickets_leave")
            assert died.status == "error"
            assert time.monotonic() - started < 15, "it is not waited for until the timeout"
            assert (await outcome(outside, "tickets_find", b'{"word": "x"}')).text == "ticket 7 speaks of x"

    asyncio.run(go())


def test_a_slow_call_ends_in_its_time_and_leaves_the_others_alone():
    async def go():
        async with opened(over_stdio("find", "wait", timeout=3.0)) as outside:
            await outside.ready()
            slow = await outcome(outside, "tickets_wait", b'{"seconds": 4}')
            assert (slow.status, slow.text) == ("timeout", "The tool has not answered within 3 seconds.")
            await asyncio.sleep(1.5)
            assert (await outcome(outside, "tickets_find", b'{"word": "x"}')).status == "ok"

    asyncio.run(go())


def test_an_assistant_uses_them_with_approval_and_answers_without_them(tmp_path):
    port = free_port()
    server = over_http(port, "find", "close", approve=("close",), allow=("group:staff",), timeout=20.0)

    async def go():
        async with opened(server) as outside:
            turns = [
                Call("tickets_find", {"word": "pumps"}),
                "The tickets cannot be read.",
                [Call("tickets_find", {"word": "pumps"}), Call("tickets_close", {"ticket": 7})],
                "Ticket 7 is closed.",
                "Not for you.",
            ]
            service, script = assistant(turns, pages=None, threads=sqlite(tmp_path), outside=[outside])
            await outside.ready()
            events = await all_of(service.run(asked("pumps?"), ADA))
            (failed,) = of_type(events, ToolResult)
            assert (failed.status, "does not answer" in failed.content) == ("error", True)
            assert "".join(event.text for event in of_type(events, Text)) == "The tickets cannot be read."
            with running(port):
                await outcome(outside, "tickets_find", b'{"word": "x"}')
                thread = (await service.create_thread(ADA)).thread_id
                events = await all_of(service.run(asked("close it", thread), ADA))
                (waiting,) = of_type(events, Interrupt)
                assert [one["name"] for one in waiting.action_requests] == ["tickets_close"]
                offered = {tool.name: tool for tool in script.requests[2].tools}
                assert offered["tickets_find"].parameters["required"] == ["word"], "it is shown what is known by now"
                events = await all_of(service.resume(thread, waiting.id, [{"type": "approve"}], ADA))
                assert {one.name: one.status for one in of_type(events, ToolResult)} == {
                    "tickets_find": "ok",
                    "tickets_close": "ok",
                }
                await all_of(service.run(asked("and mine?"), BOB))
                assert not script.requests[-1].tools, "who may not use them is not offered them"
            await service.close()

    asyncio.run(go())


def test_names_are_such_as_models_take():
    assert tool_name("tickets", "find/all.now") == "tickets_find_all_now"
    assert len(tool_name("t" * 40, "f" * 40)) == 64


@pytest.mark.parametrize(
    "command",
    [
        ("no-such-program",),
        (sys.executable, "-c", "print('hello')"),
        (sys.executable, "-c", "import time; time.sleep(60)"),
    ],
)
def test_a_program_that_is_no_server_is_down(command):
    async def go():
        told = []
        server = OutsideServer("tickets", ("find",), command=command, timeout=2.0)
        started = time.monotonic()
        async with opened(server, told) as outside:
            await outside.ready()
            assert "MS-4304" in told[0]
            assert (await outcome(outside, "tickets_find")).status in ("error", "timeout")
        assert time.monotonic() - started < 20

    asyncio.run(go())


def test_calls_at_once_share_the_connection():
    async def go():
        async with opened(over_stdio("find")) as outside:
            await outside.ready()
            found = await asyncio.gather(
                *(outcome(outside, "tickets_find", b'{"word": "%d"}' % at) for at in range(20))
            )
            assert [one.text for one in found] == [f"ticket 7 speaks of {at}" for at in range(20)]

    asyncio.run(go())


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_error(401)

    def log_message(self, *words):
        pass


def test_a_fault_names_no_password():
    async def go(port):
        told = []
        url = f"http://ada:hunter2@127.0.0.1:{port}/mcp"
        async with opened(OutsideServer("tickets", ("find",), url=url, timeout=10.0), told) as outside:
            await outside.ready()
        assert "401" in told[0]
        assert "hunter2" not in told[0]

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asyncio.run(go(server.server_port))
        server.shutdown()
