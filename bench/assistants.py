"""What an assistant costs beside its model: CPU of a run over a scripted model, with and without threads and tools.

python bench/assistants.py
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from langchain.agents import create_agent

from assistants_kit import ADA, all_of, asked, assistant, sqlite, tool
from mainspring.testing import Call, Script, ScriptedChat

RUNS, ROUNDS = 100, 3
WORDS = "Goods may be returned within 30 days of delivery [1]. " * 5


def with_tool(request: Any) -> Any:
    if request.tools and request.messages[-1].role == "user":
        return Call("refund", {"order_id": 1})
    return WORDS if not request.tools else ""


async def plain_agent() -> None:
    """LangChain's own agent over the same model, streamed, without anything of ours."""
    agent = create_agent(ScriptedChat(lambda request: WORDS), [])
    for _ in range(RUNS):
        async for _ in agent.astream({"messages": [("user", "When may goods be returned?")]}, stream_mode="messages"):
            pass


def ours(**options: Any) -> Callable[[], Any]:
    async def run() -> None:
        script = options.pop("script", None) or Script(lambda request: WORDS)
        service, _ = assistant(script, **options)
        thread = (await service.create_thread(ADA)).thread_id if options.get("threads") else ""
        for _ in range(RUNS):
            events = await all_of(service.run(asked("When may goods be returned?", thread), ADA))
            assert type(events[-1]).__name__ == "End", events[-1]

    return run


def main() -> None:
    """Print milliseconds of CPU per run, the best of the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        cases: dict[str, Callable[[], Any]] = {
            "LangChain's agent, no retrieval, no citations": plain_agent,
            "ours, no retrieval": ours(pages=None),
            "ours, retrieval and citations": ours(),
            "ours, with a tool": ours(script=Script(with_tool), usables=[tool(lambda a, c: "ok")]),
        }
        for name, run in cases.items():
            best = min(spent(run) for _ in range(ROUNDS))
            print(f"{name:<50} {1000 * best / RUNS:8.2f} ms CPU a run")
        store = sqlite(Path(folder))
        run = ours(threads=store)
        print(f"{'ours, in a thread that grows to 100 turns':<50} {1000 * spent(run) / RUNS:8.2f} ms CPU a run")
        store.close()


def spent(run: Callable[[], Any]) -> float:
    started = time.process_time()
    asyncio.run(run())
    return time.process_time() - started


if __name__ == "__main__":
    main()
