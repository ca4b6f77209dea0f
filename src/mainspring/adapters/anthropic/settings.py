"""Settings of an upstream that speaks Anthropic's Messages API."""

from typing import Annotated

import msgspec

__all__ = ["AnthropicSettings"]

_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class AnthropicSettings(msgspec.Struct, frozen=True):
    """Which model, who asks, and how long it may take.

    Attributes:
        url: without the version.
        model: the upstream's name of the model; it must be given.
        key: the API key, a secret reference; sent as ``x-api-key``.
        version: ``anthropic-version``.
        headers: more headers of every request, such as ``anthropic-beta``.
        body: more fields of every request's body, which replace those of ours, such as ``thinking``.
        max_tokens: most tokens of an answer whose request does not say; the wire wants a number.
        ca: file of the certificates to trust instead of the system's.
        context: most tokens of prompt and answer, when it is to be checked here.
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

    model: str
    url: str = "https://api.anthropic.com"
    key: str | None = None
    version: str = "2023-06-01"
    headers: dict[str, str] = {}
    body: dict[str, object] = {}
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] = 4096
    ca: str = ""
    context: Annotated[int, msgspec.Meta(ge=1)] | None = None
    images: bool = True
    passthrough: tuple[str, ...] = ()
    most: Annotated[int, msgspec.Meta(ge=1)] = 1024
    idle: Annotated[int, msgspec.Meta(ge=0)] = 64
    connect: _Seconds = 5.0
    first_token: _Seconds = 60.0
    inter_token: _Seconds = 30.0
    total: _Seconds = 600.0

    def __repr__(self) -> str:
        """Without the key and the headers."""
        return f"AnthropicSettings(url={self.url!r}, model={self.model!r}, key={'***' if self.key else None})"
