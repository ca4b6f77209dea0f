"""LLM engines: from a request to a stream of typed events; every wire format is rendered from those."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

__all__ = [
    "Capabilities",
    "EmbedRequest",
    "Embeddings",
    "End",
    "Engine",
    "Error",
    "ErrorKind",
    "Event",
    "Failed",
    "Generation",
    "Health",
    "Image",
    "Message",
    "Part",
    "Ready",
    "Reason",
    "Reasoning",
    "Relay",
    "Relayed",
    "Role",
    "Sampling",
    "Schema",
    "Start",
    "Text",
    "Timings",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolDelta",
    "Usage",
]

Role = Literal["system", "user", "assistant", "tool"]
Reason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled"]
ErrorKind = Literal[
    "invalid", "context_length", "not_found", "auth", "rate", "overloaded", "timeout", "upstream", "crashed"
]


# -- what is asked ----------------------------------------------------------------------------------------------------


class Image(msgspec.Struct, frozen=True, gc=False):
    """A picture in a message: its bytes, never an address to fetch.

    Attributes:
        data: the encoded file.
        media_type: ``image/png``, ``image/jpeg``, ``image/webp``.
    """

    data: bytes
    media_type: str


Part: TypeAlias = str | Image


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """A call that the model asks for; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, gc=False):
    """One turn of a conversation.

    Attributes:
        role: who speaks.
        content: its parts in order; text or pictures.
        name: the speaker's name, where the template shows it.
        calls: the calls that an assistant's turn asks for.
        answers: the id of the call whose result a tool's turn is.
    """

    role: Role
    content: tuple[Part, ...] = ()
    name: str = ""
    calls: tuple[ToolCall, ...] = ()
    answers: str = ""

    @property
    def text(self) -> str:
        """All its text, joined."""
        return "".join([part for part in self.content if isinstance(part, str)])


class Tool(msgspec.Struct, frozen=True, gc=False):
    """A tool that the model may call; `parameters` is a JSON schema of an object."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] = {}
    strict: bool = False


class ToolChoice(msgspec.Struct, frozen=True, gc=False):
    """Whether the model calls a tool: as it likes, never, at least one, or the one that is named."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str = ""
    parallel: bool = True


class Schema(msgspec.Struct, frozen=True, gc=False):
    """What the answer must be: any JSON object (no schema), or an instance of a JSON schema."""

    schema: Mapping[str, object] | None = None
    name: str = ""
    strict: bool = True


class Sampling(msgspec.Struct, frozen=True, gc=False):
    """How tokens are drawn; None leaves it to the engine's own default.

    Attributes:
        temperature: 0 is greedy.
        top_p: nucleus, in (0, 1].
        top_k: of the k likeliest only.
        min_p: of those at least this share of the likeliest's probability only.
        seed: makes draws repeatable, as far as the engine can.
        stop: texts that end a choice; they are not part of the answer.
        max_tokens: most tokens of one choice.
        n: how many choices.
        presence_penalty: in [-2, 2].
        frequency_penalty: in [-2, 2].
        logit_bias: by token id, in [-100, 100].
        logprobs: None for none, else how many alternatives beside each token.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    n: int = 1
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] = {}
    logprobs: int | None = None


class Generation(msgspec.Struct, frozen=True, gc=False):
    """A request to generate: a conversation, or a bare prompt.

    Attributes:
        id: unique; `Engine.cancel` names it.
        model: the engine's own name of the model.
        messages: the conversation; empty for a bare prompt.
        prompt: text or token ids to be continued, when there is no conversation.
        echo: whether a bare prompt is repeated at the answer's start.
        suffix: what comes after the completion of a bare prompt, for models that fill in.
        sampling: how tokens are drawn.
        tools: what the model may call.
        choice: whether it does.
        schema: what the answer must be, or None.
        user: an opaque name of the end user, for the upstream's abuse detection; never for authorisation.
        extra: further fields for an engine that speaks the same wire, as the client wrote them.
    """

    id: str
    model: str
    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] | None = None
    echo: bool = False
    suffix: str = ""
    sampling: Sampling = Sampling()
    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = ToolChoice()
    schema: Schema | None = None
    user: str = ""
    extra: Mapping[str, object] = {}


class EmbedRequest(msgspec.Struct, frozen=True, gc=False):
    """Texts (or token ids) to embed; `dims` asks for shorter vectors where the model can."""

    id: str
    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dims: int | None = None


# -- what is answered -------------------------------------------------------------------------------------------------


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of a whole request, over all its choices.

    Attributes:
        prompt: all tokens of the prompt; holds `cached` and `cache_write`.
        completion: all generated tokens; holds `reasoning`.
        cached: tokens of the prompt whose state was reused.
        cache_write: tokens of the prompt whose state was stored for reuse, where that is billed.
        reasoning: generated tokens that are not part of the answer.
        source: whether the engine counted, or we did.
    """

    prompt: int
    completion: int
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    source: Literal["engine", "counted"] = "engine"


class Timings(msgspec.Struct, frozen=True, gc=False):
    """Where an engine spent its time, in microseconds; 0 where it does not say."""

    queue_us: int = 0
    prompt_us: int = 0
    generate_us: int = 0


class TokenLogprob(msgspec.Struct, frozen=True, gc=False):
    """A token with its log probability and the likeliest alternatives, itself among them when it is one."""

    token: str
    logprob: float
    token_id: int | None = None
    top: tuple[TokenLogprob, ...] = ()


class Start(msgspec.Struct, frozen=True, gc=False):
    """The engine has accepted the request; once, first. Counts are None where the engine tells them at the end only."""

    prompt_tokens: int | None = None
    cached: int | None = None


class Text(msgspec.Struct, frozen=True, gc=False):
    """A piece of a choice's answer: whole UTF-8, never half a character.

    `tokens` is how many it is made of, 0 where the engine does not say.
    """

    text: str
    tokens: int = 0
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


class Reasoning(msgspec.Struct, frozen=True, gc=False):
    """A piece of what a model thinks before it answers."""

    text: str
    tokens: int = 0
    choice: int = 0


class ToolDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of a tool call: id and name come with its first piece, `arguments` is the next part of the JSON text."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    choice: int = 0


class End(msgspec.Struct, frozen=True, gc=False):
    """The answer is whole; once, last.

    Attributes:
        reasons: why each choice ended, by choice.
        usage: tokens of the request, or None when the engine did not say.
        timings: the engine's own.
        stopped_by: the stop text that ended each choice, or empty.
    """

    reasons: tuple[Reason, ...]
    usage: Usage | None = None
    timings: Timings = Timings()
    stopped_by: tuple[str, ...] = ()


class Error(msgspec.Struct, frozen=True, gc=False):
    """The request has failed; last, in place of `End`.

    Attributes:
        kind: what kind of fault.
        message: for the client: no secrets, no internals.
        retryable: whether the same request may do better elsewhere or later.
        retry_after: seconds that the engine asked to wait, or None.
        status: the upstream's HTTP status, or 0.
    """

    kind: ErrorKind
    message: str
    retryable: bool = False
    retry_after: float | None = None
    status: int = 0


Event: TypeAlias = Start | Text | Reasoning | ToolDelta | End | Error


class Embeddings(msgspec.Struct, frozen=True, gc=False):
    """Vectors in the order of the inputs, each little-endian float32 bytes of `dims` numbers."""

    vectors: tuple[bytes, ...]
    dims: int
    usage: Usage


# -- the engine -------------------------------------------------------------------------------------------------------


class Capabilities(msgspec.Struct, frozen=True, gc=False):
    """What an engine can do, as data: the gateway refuses or makes up for what it cannot.

    Attributes:
        models: the names it answers to; empty is any.
        context: most tokens of prompt and answer together, or None when only the upstream knows.
        context_from: who set that limit: ``llms.chat.context, mainspring.toml:4``, ``the model's own file``.
        chat: whether it takes conversations (a model without a template does not).
        completion: whether it takes bare prompts.
        embeddings: whether it embeds.
        tools: whether it parses tool calls itself.
        grammar: whether it can force an answer into a JSON schema.
        logprobs: whether it tells log probabilities.
        images: whether it sees pictures.
        seeds: whether a seed makes it repeatable.
        choices: whether it takes ``n > 1`` itself.
        wire: the wire format that it speaks, when bytes may be relayed as they are.
        passthrough: paths below the upstream's own that clients may ask as they are; one that ends in ``/*`` is of all
            below it.
    """

    models: tuple[str, ...] = ()
    context: int | None = None
    context_from: str = ""
    chat: bool = True
    completion: bool = True
    embeddings: bool = False
    tools: bool = False
    grammar: bool = False
    logprobs: bool = False
    images: bool = False
    seeds: bool = False
    choices: bool = False
    wire: Literal["", "openai", "anthropic"] = ""
    passthrough: tuple[str, ...] = ()


class Ready(msgspec.Struct, frozen=True, gc=False):
    """The engine has answered with a real token; how long that took, in seconds."""

    seconds: float
    model: str = ""


class Failed(msgspec.Struct, frozen=True, gc=False):
    """The engine cannot start, and what to do about it."""

    why: str
    fix: str = ""


class Health(msgspec.Struct, frozen=True, gc=False):
    """Whether one token came within the deadline; how long it took, in microseconds, and why not."""

    ok: bool
    took_us: int = 0
    why: str = ""


@runtime_checkable
class Engine(Protocol):
    """One model behind a uniform stream of events. All methods are called on one event loop."""

    async def start(self) -> Ready | Failed:
        """Load or connect; called once, and again after a crash."""

    def generate(self, request: Generation) -> AsyncIterator[Event]:
        """The answer: `Start` first, once accepted; one `End` or `Error` last, also after `cancel`.

        Never raises for what the engine or the network does: that is an `Error`. Closing the iterator cancels.
        """

    async def cancel(self, id: str) -> None:
        """Stop a generation; nothing when it is over. Its stream ends with reason ``cancelled``."""

    async def embed(self, request: EmbedRequest) -> Embeddings | Error:
        """The vectors of texts."""

    async def tokenize(self, text: str) -> Sequence[int] | None:
        """The model's token ids of a text, or None when the engine cannot tell."""

    async def count(self, request: Generation) -> int | None:
        """Tokens of the prompt after the chat template and the tools, or None when the engine cannot tell."""

    async def health(self, deadline: float) -> Health:
        """Generate one token within `deadline` seconds."""

    async def drain(self, deadline: float) -> None:
        """Take nothing new, let what runs end for `deadline` seconds, then cancel it and stop."""

    def capabilities(self) -> Capabilities:
        """What it can do; complete after `start`."""


class Relayed(msgspec.Struct, frozen=True, gc=False):
    """An upstream's answer as it is: status, headers by lower-case name, and the bytes of its body as they come.

    Closing `chunks` closes the upstream's connection; reading them may raise `mainspring.upstream.faults.BrokenError`.
    """

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


@runtime_checkable
class Relay(Protocol):
    """An engine that can pass bytes on, to and from an upstream that speaks `Capabilities.wire`."""

    async def relay(
        self, id: str, path: str, body: bytes, *, method: str = "POST", headers: Mapping[str, str] | None = None
    ) -> Relayed | Error:
        """Send a body as it is to a path below the upstream's own, such as ``/chat/completions``.

        The upstream's refusals (429, 500) are answers with their status, not errors, and do not repeat our key;
        `Engine.cancel` knows the id.

        Args:
            id: of the request.
            path: with a query, where it has one.
            body: whole; an empty one is none where the method is not POST.
            method: of HTTP, not HEAD.
            headers: by lower-case name, besides ours, which they do not replace; ``content-type`` is JSON without it.
        """
