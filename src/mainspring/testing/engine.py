"""A language model for tests: it answers what its script says, at the pace it says, with the faults it says.

It is deterministic, needs nothing, and shows what was asked of it::

    engine = FakeEngine([Answer(when="refund", text="Within 30 days."), Answer(text="I do not know.")])
    broken = FakeEngine([Answer(text="Half an ans", error="upstream")])
    slow = FakeEngine([Answer(text="one two three", hold=1)])   # waits after one piece until `release` or a cancel
"""

from __future__ import annotations

import asyncio
import math
import re
import time
import zlib
from array import array
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

import msgspec
import orjson

from mainspring.ports.llm import (
    Capabilities,
    Embeddings,
    EmbedRequest,
    End,
    Error,
    ErrorKind,
    Event,
    Failed,
    Generation,
    Health,
    Message,
    Ready,
    Reason,
    Reasoning,
    Sampling,
    Start,
    Text,
    TokenLogprob,
    ToolDelta,
    Usage,
)
from mainspring.testing.example import example_of
from mainspring.upstream.checks import refusal_of
from mainspring.upstream.generations import Generations, Ticket
from mainspring.upstream.stops import StopScanner

__all__ = ["Answer", "Call", "FakeEngine", "Script"]

_PIECES = re.compile(r"\s*[^\W_]+|\s*[\W_]")


class Call(msgspec.Struct, frozen=True):
    """A tool call of a scripted answer; `arguments` is an object, or the raw text of one for faulty models."""

    name: str
    arguments: Mapping[str, object] | str = {}


class Answer(msgspec.Struct, frozen=True):
    r"""What is answered to a request, if it matches.

    Attributes:
        when: regular expression that is searched in the last message's text, or in the prompt; empty fits all.
        text: the answer; ``\g<0>`` and groups of `when` are filled in.
        echo: the last message's own text is the answer.
        pieces: the answer in exactly these pieces, instead of `text`; a piece is a token.
        reasoning: thought before the answer.
        calls: tools that are called.
        reason: why it ends, if not as the request has it.
        delay: seconds before it is accepted.
        pace: seconds between two pieces.
        hold: after so many pieces it waits, until `FakeEngine.release` or a cancel.
        error: it fails with that kind, after `after` pieces; after all of them when that is left out.
        after: pieces before the error; -1 refuses the request before it is accepted.
        retryable: whether the error may pass.
        retry_after: seconds that the error asks to wait.
        cached: tokens of the prompt that count as reused.
        silent: usage is not told.
        times: how many requests this answers; 0 is any number.
    """

    when: str = ""
    text: str = ""
    echo: bool = False
    pieces: tuple[str, ...] = ()
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    reason: Reason | None = None
    delay: float = 0.0
    pace: float = 0.0
    hold: int | None = None
    error: ErrorKind | None = None
    after: int | None = None
    retryable: bool = False
    retry_after: float | None = None
    cached: int = 0
    silent: bool = False
    times: int = 0


Script = Sequence[Answer] | Callable[[Generation], Answer]
_ECHO = Answer(echo=True)


class FakeEngine:
    """An engine of the port ``llm`` that answers by a script.

    Args:
        script: the answers; the first that fits a request is given. A function may decide instead. Without one, and
            for what fits none, the last message is repeated.
        models: the names it answers to; empty is any.
        context: most tokens of prompt and answer together.
        dims: numbers of an embedding.
        most: requests under way at once.
        chat: whether it takes conversations.

    Attributes:
        requests: what was asked, in order.
        cancelled: ids whose generation was cut short, by `cancel` or because its reader left.
        tokens: pieces of answers that were given, over all.
        embedded: texts that were embedded, over all.
    """

    def __init__(
        self,
        script: Script = (),
        *,
        models: tuple[str, ...] = ("fake",),
        context: int = 4096,
        dims: int = 32,
        most: int = 10_000,
        chat: bool = True,
    ) -> None:
        self.requests: list[Generation] = []
        self.cancelled: list[str] = []
        self.tokens = 0
        self.embedded = 0
        self._script = script
        self._used: dict[int, int] = {}
        self._dims = dims
        self._under_way = Generations(most)
        self._released = 0
        self._held: list[asyncio.Event] = []
        self._can = Capabilities(
            models=models,
            context=context,
            context_from="the fake engine",
            chat=chat,
            embeddings=True,
            tools=True,
            grammar=True,
            logprobs=True,
            seeds=True,
            choices=True,
        )

    @property
    def under_way(self) -> int:
        """How many generations run now."""
        return len(self._under_way)

    def release(self) -> None:
        """Let go on what holds now."""
        held, self._held = self._held, []
        for event in held:
            event.set()

    # -- the port -----------------------------------------------------------------------------------------------------

    async def start(self) -> Ready | Failed:
        """Be ready at once."""
        self._under_way.draining = False
        return Ready(0.0, self._can.models[0] if self._can.models else "")

    async def generate(self, request: Generation) -> AsyncIterator[Event]:
        """What the script says."""
        self.requests.append(request)
        answer = self._answer(request)
        refused = self._under_way.refusal() or refusal_of(request, self._can) or self._too_long(request)
        if refused is None and answer.error is not None and answer.after == -1:
            refused = _error(answer)
        if refused is not None:
            yield refused
            return
        with self._under_way.begin(request.id) as ticket:
            whole = False
            try:
                async for event in self._events(request, answer, ticket):
                    whole = isinstance(event, (End, Error))
                    yield event
            finally:
                if ticket.cancelled or not whole:
                    self.cancelled.append(request.id)

    async def cancel(self, id: str) -> None:
        """Stop a generation; nothing when it is over."""
        self._under_way.cancel(id)

    async def embed(self, request: EmbedRequest) -> Embeddings | Error:
        """Vectors of length 1 that texts with the same words share in part: counts of hashed words."""
        if self._can.models and request.model and request.model not in self._can.models:
            return Error("not_found", f"model {request.model!r} is not served here", status=404)
        self.embedded += len(request.inputs)
        dims = request.dims or self._dims
        tokens = sum(len(_tokens(text)) if isinstance(text, str) else len(text) for text in request.inputs)
        return Embeddings(tuple(_vector(text, dims) for text in request.inputs), dims, Usage(tokens, 0))

    async def tokenize(self, text: str) -> Sequence[int]:
        """A number for each word, each sign."""
        return [zlib.crc32(piece.encode()) & 0xFFFF for piece in _tokens(text)]

    async def count(self, request: Generation) -> int:
        """Tokens of the texts and the tools, and three for each message."""
        return _count(request)

    async def health(self, deadline: float) -> Health:
        """Whether a token comes: it does, unless it is stopped or the script has a fault for everything."""
        started = time.perf_counter_ns()
        answer = self._answer(Generation("health", "", prompt="health"), used=False)
        why = "the engine is stopping" if self._under_way.draining else answer.error or ""
        return Health(not why, max(1, (time.perf_counter_ns() - started) // 1000), why)

    async def drain(self, deadline: float) -> None:
        """Take nothing new and let what runs end."""
        await self._under_way.drain(deadline)

    def capabilities(self) -> Capabilities:
        """Everything but pictures."""
        return self._can

    # -- the script ---------------------------------------------------------------------------------------------------

    def _answer(self, request: Generation, *, used: bool = True) -> Answer:
        if callable(self._script):
            return self._script(request)
        asked = _asked(request)
        for place, answer in enumerate(self._script):
            found = re.search(answer.when, asked)
            if found is None or (answer.times and self._used.get(place, 0) >= answer.times):
                continue
            if used:
                self._used[place] = self._used.get(place, 0) + 1
            return msgspec.structs.replace(answer, text=found.expand(answer.text)) if answer.when else answer
        return _ECHO

    def _too_long(self, request: Generation) -> Error | None:
        count, context = _count(request), self._can.context or 0
        if count < context:
            return None
        return Error(
            "context_length", f"the prompt has {count} tokens, the context of this model {context}", status=400
        )

    async def _events(self, request: Generation, answer: Answer, ticket: Ticket) -> AsyncIterator[Event]:
        stopped = asyncio.Event()
        ticket.stop = stopped.set
        run = _Run(request, answer, self._can.context or 0)
        await _sleep(answer.delay, stopped)
        yield Start(run.prompt, answer.cached)
        if ticket.cancelled:
            yield run.end(cancelled=True)
            return
        for number, event in enumerate(run.events()):
            if answer.error is not None and number == answer.after:
                break
            if number == answer.hold:
                await self._hold(stopped)
            elif number and answer.pace:
                await _sleep(answer.pace, stopped)
            else:
                await asyncio.sleep(0)
            if ticket.cancelled:
                yield run.end(cancelled=True)
                return
            self.tokens += run.told(event)
            yield event
        yield run.end() if answer.error is None else _error(answer)

    async def _hold(self, stopped: asyncio.Event) -> None:
        event = asyncio.Event()
        self._held.append(event)
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(stopped.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


class _Run:
    """One answer on its way."""

    def __init__(self, request: Generation, answer: Answer, context: int) -> None:
        self.prompt = _count(request)
        self._request = request
        self._answer = answer
        self._room = min(request.sampling.max_tokens or context, context - self.prompt)
        self._reasons: list[Reason | None] = [None] * request.sampling.n
        self._stopped_by = [""] * request.sampling.n
        self._completion = 0
        self._reasoning = 0

    def events(self) -> Iterator[Event]:
        """All events between `Start` and `End`: the choices one after the other."""
        for choice in range(self._request.sampling.n):
            yield from self._choice(choice)

    def _choice(self, choice: int) -> Iterator[Event]:
        room = self._room
        thought = _tokens(self._answer.reasoning)[:room]
        for piece in thought:
            yield Reasoning(piece, 1, choice)
        room -= len(thought)
        calls = self._calls()
        if calls:
            yield from _call_events(calls, choice)
            self._reasons[choice] = self._answer.reason or "tool_calls"
            return
        yield from self._texts(choice, room)

    def _texts(self, choice: int, room: int) -> Iterator[Event]:
        sampling, scanner = self._request.sampling, StopScanner(self._request.sampling.stop)
        pieces = self._pieces()
        for piece in pieces[:room]:
            text = scanner.feed(piece)
            if text or sampling.logprobs is not None:
                yield Text(text, 1, choice, _logprobs(piece, sampling))
            else:
                self._completion += 1
            if scanner.stopped_by:
                self._reasons[choice], self._stopped_by[choice] = "stop", scanner.stopped_by
                return
        if rest := scanner.finish():
            yield Text(rest, 0, choice)
        self._reasons[choice] = self._answer.reason or ("length" if len(pieces) > room else "stop")

    def _pieces(self) -> tuple[str, ...]:
        answer, wanted = self._answer, self._request.schema
        if answer.pieces:
            return answer.pieces
        text = _asked(self._request) if answer.echo else answer.text
        if wanted is not None and not _is_json(text):
            text = orjson.dumps(example_of(wanted.schema or {"type": "object"})).decode()
        return tuple(_tokens(text))

    def _calls(self) -> tuple[Call, ...]:
        request, choice = self._request, self._request.choice
        if self._answer.calls and choice.mode != "none":
            return self._answer.calls
        if choice.mode == "named":
            tool = next(tool for tool in request.tools if tool.name == choice.name)
        elif choice.mode == "required":
            tool = request.tools[0]
        else:
            return ()
        return (Call(tool.name, example_of(tool.parameters or {"type": "object"})),)  # type: ignore[arg-type]

    def told(self, event: Event) -> int:
        """Count what is told; how many tokens that were."""
        tokens = event.tokens if isinstance(event, (Text, Reasoning)) else int(isinstance(event, ToolDelta))
        self._completion += tokens
        self._reasoning += tokens if isinstance(event, Reasoning) else 0
        return tokens

    def end(self, *, cancelled: bool = False) -> End:
        """The last event."""
        reasons: list[Reason] = [reason or ("cancelled" if cancelled else "stop") for reason in self._reasons]
        usage = Usage(self.prompt, self._completion, self._answer.cached, 0, self._reasoning)
        return End(tuple(reasons), None if self._answer.silent else usage, stopped_by=tuple(self._stopped_by))


def _call_events(calls: tuple[Call, ...], choice: int) -> Iterator[Event]:
    for index, call in enumerate(calls):
        text = call.arguments if isinstance(call.arguments, str) else orjson.dumps(call.arguments).decode()
        id = f"call_{zlib.crc32(f'{choice}/{index}/{call.name}/{text}'.encode()):08x}"
        yield ToolDelta(index, id, call.name, "", choice)
        for piece in _tokens(text):
            yield ToolDelta(index, "", "", piece, choice)


def _error(answer: Answer) -> Error:
    kind = answer.error or "upstream"
    return Error(kind, f"the script says so: {kind}", answer.retryable, answer.retry_after)


async def _sleep(seconds: float, stopped: asyncio.Event) -> None:
    if seconds > 0:
        try:
            await asyncio.wait_for(stopped.wait(), seconds)
        except TimeoutError:
            return


def _tokens(text: str) -> list[str]:
    found = _PIECES.findall(text)
    rest = text[sum(map(len, found)) :]
    return [*found, rest] if rest else found


def _asked(request: Generation) -> str:
    if request.messages:
        return request.messages[-1].text
    return request.prompt if isinstance(request.prompt, str) else ""


def _count(request: Generation) -> int:
    if not request.messages:
        return len(request.prompt) if isinstance(request.prompt, tuple) else len(_tokens(request.prompt or ""))
    tools = sum(len(_tokens(tool.description)) + len(_tokens(_plain(tool.parameters))) + 3 for tool in request.tools)
    return sum(_count_of(message) for message in request.messages) + tools


def _count_of(message: Message) -> int:
    return 3 + len(_tokens(message.text)) + sum(len(_tokens(call.arguments)) + 2 for call in message.calls)


def _plain(parameters: Mapping[str, object]) -> str:
    return orjson.dumps(dict(parameters)).decode()


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def _logprobs(piece: str, sampling: Sampling) -> tuple[TokenLogprob, ...]:
    if sampling.logprobs is None:
        return ()
    others = [TokenLogprob(f" other{number}", -2.0 - number) for number in range(max(0, sampling.logprobs - 1))]
    top = (TokenLogprob(piece, -0.25), *others) if sampling.logprobs else ()
    return (TokenLogprob(piece, -0.25, zlib.crc32(piece.encode()) & 0xFFFF, top),)


def _vector(text: str | tuple[int, ...], dims: int) -> bytes:
    numbers = [0.0] * dims
    words = re.findall(r"\w+", text.lower()) if isinstance(text, str) else [str(token) for token in text]
    for word in words or [""]:
        numbers[zlib.crc32(word.encode()) % dims] += 1.0
    length = math.sqrt(sum(number * number for number in numbers))
    return array("f", [number / length for number in numbers]).tobytes()
