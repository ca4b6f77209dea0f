"""Approvals over kill -9: what waits goes on waiting, and what a person has approved is carried out once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
DRIVER = """
import asyncio, json, os, sys, time
from pathlib import Path
from assistants_kit import ADA, all_of, asked, assistant, sqlite, tool
from mainspring.testing import Call

folder, verb, *rest = sys.argv[1:]
folder = Path(folder)

def refund(arguments, caller):
    with open(folder / "refunds", "a") as file:
        file.write(arguments.decode() + "\\n")
    if (folder / "hang").exists():
        print("in the tool", flush=True)
        time.sleep(60)
    return "refunded"

turns = [Call("refund", {"order_id": 1})] if verb == "ask" else ["Done."]
service, _ = assistant(turns, usables=[tool(refund, approve=True)], pages=None, threads=sqlite(folder))

async def ask():
    thread = (await service.create_thread(ADA)).thread_id
    waiting = (await all_of(service.run(asked("Refund 1.", thread), ADA)))[-1]
    print(json.dumps([thread, waiting.id]), flush=True)
    await asyncio.sleep(60)

async def approve(thread, interrupt):
    events = await all_of(service.resume(thread, interrupt, [{"type": "approve"}], ADA))
    print(json.dumps([[event.content for event in events if hasattr(event, "content")], type(events[-1]).__name__]))

async def again(thread):
    # what a restarted server may do with a run that was cut off: it lets the graph go on from its last checkpoint
    from mainspring.assistants.runs import Job
    job = service._job("again", thread, ADA, None, "", "")
    events = await all_of(service._running.events(job))
    print(json.dumps([[event.content for event in events if hasattr(event, "content")], type(events[-1]).__name__]))

asyncio.run({"ask": ask, "approve": approve, "again": again}[verb](*rest))
"""


def start(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    process.stdout.close()


def finish(process):
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(out)


def refunds(folder):
    file = folder / "refunds"
    return file.read_text().splitlines() if file.exists() else []


def asked_and_killed(folder):
    asking = start(folder, "ask")
    thread, interrupt = json.loads(asking.stdout.readline())
    kill(asking)
    assert refunds(folder) == []
    return thread, interrupt


def test_interrupt_kill_restart_approve_runs_the_tool_once(tmp_path):
    thread, interrupt = asked_and_killed(tmp_path)
    assert finish(start(tmp_path, "approve", thread, interrupt)) == [["refunded"], "End"]
    assert refunds(tmp_path) == ['{"order_id":1}']


def test_a_tool_that_was_killed_in_its_midst_is_not_carried_out_again(tmp_path):
    thread, interrupt = asked_and_killed(tmp_path)
    (tmp_path / "hang").touch()
    approving = start(tmp_path, "approve", thread, interrupt)
    assert approving.stdout.readline() == "in the tool\n"
    kill(approving)
    (tmp_path / "hang").unlink()
    contents, last = finish(start(tmp_path, "again", thread))
    assert (len(contents), last) == (1, "End")
    assert contents[0].startswith("It is not known whether this call was carried out")
    assert refunds(tmp_path) == ['{"order_id":1}']
