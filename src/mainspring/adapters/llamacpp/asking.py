"""From a request to what llama.cpp is asked: by which path, with which prompt, and how its answer is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import orjson

from mainspring.adapters.llamacpp.completion import CompletionEvents, FitsSchema, Reader, body_of
from mainspring.adapters.llamacpp.native_chat import NativeChat
from mainspring.adapters.llamacpp.schemas import compact, unsupported
from mainspring.adapters.llamacpp.tools import ForcedCall, TaggedCalls, call_schema, told_in_prompt
from mainspring.ports.llm import Error, Generation
from mainspring.upstream.chat_request import body_for, messages_for, tools_for
from mainspring.upstream.stream import Decoder

__all__ = ["Ask", "Asking"]

Ask = Callable[[str, str, Mapping[str, object]], Awaitable[Any]]
_THOUGHTS = ("<think>", "reasoning_content", "<|channel|>", "enable_thinking")
_ANY_OBJECT: Mapping[str, object] = {"type": "object"}


class Asking:
    """How a model is asked, by what its template can.

    With a template that knows tools, or thoughts, llama.cpp's own chat route also parses what such a model writes. Any
    other conversation, and every one that must call, is rendered first and completed then: that tells and forces more.

    Args:
        ask: posts a value to a path of the engine and gives its answer.
        template: the chat template.
        slots: most choices of one request.
    """

    def __init__(self, ask: Ask, template: str, slots: int) -> None:
        self._ask = ask
        self._slots = slots
        self._thinks = any(word in template for word in _THOUGHTS)
        self._knows_tools = False
        self._bos = ""

    def learn(self, props: Mapping[str, Any], *, adds_bos: bool) -> None:
        """Take in what the engine says of its model."""
        self._knows_tools = bool(props.get("chat_template_caps", {}).get("supports_tools"))
        self._bos = str(props.get("bos_token", "")) if adds_bos else ""

    def refusal_of(self, request: Generation) -> Error | None:
        """Why this engine does not answer a request, or None."""
        why = ""
        if request.sampling.n > self._slots:
            why = f"n is {request.sampling.n}, this engine has {self._slots} slots"
        elif request.suffix:
            why = "this engine does not fill in: suffix must be empty"
        elif request.echo and request.sampling.logprobs is not None:
            why = "this engine tells no log probabilities of an echo"
        elif request.schema is not None and request.schema.schema is not None:
            why = unsupported(request.schema.schema)
        if not why and request.choice.mode != "none":
            faults = ((tool.name, unsupported(tool.parameters)) for tool in request.tools)
            why = next((f"tool {name!r}: {fault}" for name, fault in faults if fault), "")
        return Error("invalid", why, status=400) if why else None

    async def asked(self, request: Generation) -> tuple[str, bytes, Decoder]:
        """Path, body, and the decoder of the answer.

        Raises:
            BrokenError: the conversation cannot be rendered.
        """
        if self._natively(request):
            return "/v1/chat/completions", self._chat(request), NativeChat(request.sampling.n)
        prompt = await self.prompt_of(request)
        schema = self._schema(request)
        echo = ""
        if request.echo:
            echo = await self.text_of(prompt)
        readers = tuple(self._reader(request) for _ in range(request.sampling.n))
        return "/completion", body_of(request, prompt, schema), CompletionEvents(request.sampling, readers, echo)

    def _natively(self, request: Generation) -> bool:
        if not request.messages:
            return False
        if request.choice.mode in ("named", "required"):
            return False  # a grammar of ours forces the call, whatever the template can
        tools = bool(request.tools) and request.choice.mode == "auto"
        return self._knows_tools if tools else self._thinks

    def _chat(self, request: Generation) -> bytes:
        if request.choice.mode == "none":
            request = msgspec.structs.replace(request, tools=())
        body = body_for(request, "") | {"return_progress": True, "timings_per_token": True}
        if request.schema is not None:
            schema = compact(request.schema.schema or _ANY_OBJECT)
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        return orjson.dumps(body)

    async def prompt_of(self, request: Generation) -> str | tuple[int, ...]:
        """The prompt that is completed: a conversation after its template, without a BOS that is put before anyway."""
        if not request.messages:
            return request.prompt or ""
        body: dict[str, object] = {}
        if self._knows_tools or self._thinks:
            body["messages"] = messages_for(request.messages)
            if request.tools and request.choice.mode != "none":
                body["tools"] = tools_for(request.tools)
        else:
            body["messages"] = messages_for(told_in_prompt(request))
        prompt = str((await self._ask("POST", "/apply-template", body))["prompt"])
        return prompt.removeprefix(self._bos) if self._bos else prompt

    async def count(self, request: Generation) -> int:
        """Tokens of the prompt."""
        prompt = await self.prompt_of(request)
        return len(prompt) if isinstance(prompt, tuple) else len(await self.tokens_of(prompt, special=True))

    async def tokens_of(self, text: str, *, special: bool) -> list[int]:
        """The tokens of a text; with the special ones that it spells, and those that the model puts before."""
        told = {"content": text, "add_special": special, "parse_special": special}
        return list((await self._ask("POST", "/tokenize", told))["tokens"])

    async def text_of(self, prompt: str | tuple[int, ...]) -> str:
        """The text of a prompt."""
        if isinstance(prompt, str):
            return prompt
        return str((await self._ask("POST", "/detokenize", {"tokens": list(prompt)}))["content"])

    def _schema(self, request: Generation) -> Mapping[str, object] | None:
        if request.choice.mode in ("named", "required"):
            return call_schema(request)
        return None if request.schema is None else compact(request.schema.schema or _ANY_OBJECT)

    def _reader(self, request: Generation) -> Reader | None:
        if request.choice.mode in ("named", "required"):
            return ForcedCall(request.tools)
        if request.schema is not None:
            return FitsSchema(request.schema.schema or _ANY_OBJECT)
        return TaggedCalls(request.tools) if request.tools and request.choice.mode == "auto" else None
