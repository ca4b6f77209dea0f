"""Settings of an upstream that speaks the OpenAI wire."""

from typing import Annotated, Literal

import msgspec

__all__ = ["OpenAISettings"]

_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class OpenAISettings(msgspec.Struct, frozen=True):
    """Where it is, who asks, and how long it may take.

    Attributes:
        url: up to the version: ``http://vllm:8000/v1``; of Azure ``https://NAME.openai.azure.com/openai/v1``, or with
            `api_version` ``https://NAME.openai.azure.com/openai/deployments/DEPLOYMENT``.
        model: the upstream's name of the model; empty is the only one that it lists.
        key: the API key, a secret reference.
        key_header: the header it goes into: ``authorization`` as a bearer's token, any other as it is; empty is
            ``api-key`` with `api_version`, else ``authorization``.
        api_version: ``api-version`` of Azure's older routes.
        headers: more headers of every request.
        body: more fields of every request's body, which replace those of ours.
        limit_field: how the most tokens of an answer are called; empty is ``max_completion_tokens`` for OpenAI's own
            and Azure's hosts, else ``max_tokens``.
        ca: file of the certificates to trust instead of the system's.
        context: most tokens of prompt and answer, when the upstream does not tell.
        chat: whether it generates.
        completion: whether it takes bare prompts.
        embeddings: whether it embeds.
        tools: whether it parses tool calls.
        grammar: whether it forces answers into a schema.
        images: whether it sees pictures.
        passthrough: paths below the version that clients may ask as they are, under ``/passthrough``, and with our key:
            ``/audio/*`` is all below one.
        most: requests under way at once; beyond them the answer is "overloaded".
        idle: connections kept for later.
        connect: seconds until a connection stands.
        first_token: seconds until the first piece of an answer.
        inter_token: seconds between two pieces.
        total: seconds of an answer.
    """

    url: str = ""
    model: str = ""
    key: str | None = None
    key_header: str = ""
    api_version: str = ""
    headers: dict[str, str] = {}
    body: dict[str, object] = {}
    limit_field: Literal["", "max_tokens", "max_completion_tokens"] = ""
    ca: str = ""
    context: Annotated[int, msgspec.Meta(ge=1)] | None = None
    chat: bool = True
    completion: bool = True
    embeddings: bool = False
    tools: bool = True
    grammar: bool = True
    images: bool = False
    passthrough: tuple[str, ...] = ()
    most: Annotated[int, msgspec.Meta(ge=1)] = 1024
    idle: Annotated[int, msgspec.Meta(ge=0)] = 64
    connect: _Seconds = 5.0
    first_token: _Seconds = 60.0
    inter_token: _Seconds = 30.0
    total: _Seconds = 600.0

    def __repr__(self) -> str:
        """Without the key and the headers."""
        return f"OpenAISettings(url={self.url!r}, model={self.model!r}, key={'***' if self.key else None})"
