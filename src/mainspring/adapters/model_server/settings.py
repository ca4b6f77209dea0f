"""Settings of the model server adapter."""

from typing import Annotated, Literal

import msgspec

__all__ = ["EmbedderSettings", "RerankerSettings"]

_Seconds = Annotated[float, msgspec.Meta(gt=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class EmbedderSettings(msgspec.Struct, frozen=True):
    """Which model, where, and how it is asked.

    Attributes:
        url: with ``openai`` what an OpenAI client calls its base URL, ``https://host/v1``; with ``tei`` the server's.
        model: its name there; it names the vectors too, so give another model another name.
        api: ``openai`` asks ``/embeddings``, ``tei`` asks ``/embed``.
        key: secret reference to the API key.
        dims: length of a vector; left out, the server is asked once.
        max_tokens: tokens of a text that the model reads.
        tokenizer: path of the model's ``tokenizer.json``, relative to the project, for exact counts; left out, ``tei``
            is asked, and with ``openai`` counts are estimates that are rather too great.
        query_prefix: what the model wants before a query.
        document_prefix: what it wants before a document.
        encoding: how vectors travel with ``openai``: ``float``, or ``base64`` where the server can.
        batch_texts: most texts of a request.
        concurrency: requests at once.
        timeout: seconds that one request may take.
        deadline: seconds that a request may take with all its retries.
        retries: how often one request is repeated when the server is busy or fails.
        query_cache: vectors of queries that are kept.
    """

    url: str
    model: str
    api: Literal["openai", "tei"] = "openai"
    key: str | None = None
    dims: _Count | None = None
    max_tokens: _Count = 512
    tokenizer: str | None = None
    query_prefix: str = ""
    document_prefix: str = ""
    encoding: Literal["float", "base64"] = "float"
    batch_texts: _Count = 32
    concurrency: _Count = 4
    timeout: _Seconds = 30.0
    deadline: _Seconds = 120.0
    retries: Annotated[int, msgspec.Meta(ge=0)] = 4
    query_cache: Annotated[int, msgspec.Meta(ge=0)] = 1024


class RerankerSettings(msgspec.Struct, frozen=True):
    """Which model, where, and how long an answer may wait for it.

    Attributes:
        url: the server's URL, without the path of the protocol.
        api: ``tei`` asks ``/rerank``, ``cohere`` ``/v2/rerank``, ``jina`` ``/v1/rerank``; vLLM answers to the last two.
        model: its name there; ``tei`` has one only.
        key: secret reference to the API key.
        batch_texts: most texts of a request.
        timeout: seconds for all of it; later, the order stays as it was.
        retries: how often one request is repeated when the server is busy or fails.
    """

    url: str
    api: Literal["tei", "cohere", "jina"] = "tei"
    model: str = ""
    key: str | None = None
    batch_texts: _Count = 32
    timeout: _Seconds = 2.0
    retries: Annotated[int, msgspec.Meta(ge=0)] = 1
