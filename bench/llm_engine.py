"""The local LLM engine: tokens a second through the port, against llama.cpp's own server; import to the first token.

Bars: >= 0.98x of the server's own tokens a second at 1, 4 and 16 streams (the other side reads the bytes of its chat
route and counts chunks, over the same socket of the same process, in turn with us); import to first token <= 1.5 s;
a cancel ends its stream within 100 ms. ``--rounds N`` and ``--tokens N`` are for busy machines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path

from mainspring.adapters.llamacpp.engine import LlamaCppEngine, open_engine
from mainspring.adapters.llamacpp.settings import LlamaCppSettings
from mainspring.ports.llm import End, Generation, Message, Ready, Sampling, Text

QUESTION = "Tell me a long story about a dog, a cat and a bird."

FIRST = """
import time
began, used = time.perf_counter(), time.process_time()
import asyncio, os, pathlib
from mainspring.adapters.llamacpp.engine import open_engine
from mainspring.adapters.llamacpp.settings import LlamaCppSettings
from mainspring.ports.llm import Generation, Message, Sampling, Text

async def main():
    engine = open_engine(LlamaCppSettings(), pathlib.Path("/nowhere/.mainspring"))
    await engine.start()
    request = Generation("r", "", (Message("user", ("Hello",)),), sampling=Sampling(max_tokens=1, temperature=0.0))
    async for event in engine.generate(request):
        if isinstance(event, Text):
            break
    took = time.perf_counter() - began
    fields = pathlib.Path(f"/proc/{engine.pid}/stat").read_text().rpartition(")")[2].split()
    child = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    print(took, time.process_time() - used + child, flush=True)
    await engine.drain(0.0)

asyncio.run(main())
"""


async def ours(engine: LlamaCppEngine, number: int, tokens: int) -> int:
    request = Generation(
        f"r{number}",
        "",
        (Message("user", (f"{QUESTION} {number}",)),),
        sampling=Sampling(max_tokens=tokens, temperature=0.0),
        extra={"ignore_eos": True},
    )
    async for event in engine.generate(request):
        if isinstance(event, End):
            return event.usage.completion if event.usage else 0
    raise SystemExit("a stream has failed")


async def theirs(socket: str, key: str, number: int, tokens: int) -> int:
    messages = [{"role": "user", "content": f"{QUESTION} {number}"}]
    body = {"messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True, "ignore_eos": True}
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_unix_connection(socket)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: l\r\nauthorization: Bearer {key}\r\n"
    writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
    chunks = 0
    while piece := await reader.read(65_536):
        chunks += piece.count(b'"content":"')
        if b"[DONE]" in piece:
            break
    writer.close()
    return chunks


async def timed(work: list[Coroutine[object, object, int]]) -> tuple[float, float]:
    """Tokens a second, and microseconds of this process's own time for each."""
    began, used = time.perf_counter(), time.process_time()
    counted = sum(await asyncio.gather(*work))
    return counted / (time.perf_counter() - began), (time.process_time() - used) / counted * 1e6


async def pair(
    engine: LlamaCppEngine, streams: int, tokens: int, ours_first: bool
) -> tuple[float, float, float, float]:
    child = engine._supervisor._child
    assert child is not None
    found = {}
    for mine in (ours_first, not ours_first):
        numbers = range(streams)
        work = [ours(engine, one, tokens) if mine else theirs(child.socket, child.key, one, tokens) for one in numbers]
        found[mine] = await timed(work)
    return (*found[True], *found[False])


async def throughput(rounds: int, tokens: int) -> bool:
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for streams in (1, 4, 16):
            engine = open_engine(LlamaCppSettings(slots=streams, context=512), Path(folder) / ".mainspring")
            ready = await engine.start()
            assert isinstance(ready, Ready), ready
            pairs = [await pair(engine, streams, tokens, bool(number % 2)) for number in range(rounds + 1)]
            del pairs[0]  # it warms the prompts' cache
            ratio = statistics.median(mine / other for mine, _, other, _ in pairs)
            mine, cpu, other, their_cpu = (statistics.median(side) for side in zip(*pairs, strict=True))
            good &= ratio >= 0.98
            print(
                f"{streams:>2} streams: ours {mine:6.1f} tok/s, the server's own {other:6.1f}, ratio {ratio:.3f} "
                f"(>= 0.98); this process's time a token: ours {cpu:.0f} us, reading the bytes {their_cpu:.0f} us"
            )
            if streams == 1:
                good &= await cancelling(engine)
            await engine.drain(0.0)
    return good


async def cancelling(engine: LlamaCppEngine) -> bool:
    took = []
    for number in range(5):
        request = Generation("c", "", (Message("user", (f"{QUESTION} {number}",)),), sampling=Sampling(max_tokens=400))
        began = 0.0
        async for event in engine.generate(request):
            if isinstance(event, Text) and not began:
                began = time.perf_counter()
                await engine.cancel("c")
        took.append(time.perf_counter() - began)
    print(f"a cancel ends its stream after {max(took) * 1000:.1f} ms at most (<= 100)")
    return max(took) <= 0.1


def first_token(rounds: int) -> bool:
    runs = [
        subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=True) for _ in range(rounds)
    ]
    wall, used = zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
    print(
        f"import to first token: {min(wall):.2f} s at best, {statistics.median(wall):.2f} s in the middle (<= 1.5); "
        f"{statistics.median(used):.2f} s of processor time, the engine's too"
    )
    return min(wall) <= 1.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    told = parser.parse_args()
    good = first_token(told.rounds)
    good &= asyncio.run(throughput(told.rounds, told.tokens))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
