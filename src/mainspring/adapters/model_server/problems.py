"""What a model server does wrong turned into cause and remedy; the key is in none of it."""

from __future__ import annotations

from mainspring.errors import ConfigError, ServiceError

__all__ = ["failing", "forbidden", "garbled", "late", "misfit", "nameless", "unreachable", "unreadable", "unwilling"]

_LONGEST = 200


def unreachable(where: str, why: str) -> ServiceError:
    """No connection, or one that breaks."""
    return ServiceError(
        f"the model server at {where} does not answer",
        code="MS-4061",
        why=why,
        fix="start the server, or correct the URL in embedder.url or reranker.url",
    )


def late(where: str, seconds: float) -> ServiceError:
    """Not done in time."""
    return ServiceError(
        f"the model server at {where} takes too long",
        code="MS-4062",
        why=f"no whole answer within {seconds:g} s",
        fix="give it more time (timeout, deadline), smaller batches (batch_texts) or more capacity",
    )


def forbidden(where: str, status: int) -> ServiceError:
    """The key is missing or wrong."""
    return ServiceError(
        f"the model server at {where} refuses the key",
        code="MS-4063",
        why=f"HTTP status {status}",
        fix="set key to a reference to a valid secret, such as env:EMBEDDER_KEY",
    )


def garbled(where: str, why: str) -> ServiceError:
    """An answer that is not what was asked for."""
    return ServiceError(
        f"the model server at {where} answers with something else",
        code="MS-4064",
        why=why[:_LONGEST],
        fix="check that url and api (openai, tei, cohere, jina) name the protocol that the server speaks",
    )


def unwilling(where: str, status: int, said: str) -> ServiceError:
    """The request is not to its liking."""
    return ServiceError(
        f"the model server at {where} refuses the request",
        code="MS-4065",
        why=f"HTTP status {status}: {said[:_LONGEST]}",
        fix="check model, max_tokens and batch_texts against what the server allows",
    )


def failing(where: str, status: int, tries: int) -> ServiceError:
    """Busy or broken, after all retries."""
    return ServiceError(
        f"the model server at {where} is busy or fails",
        code="MS-4066",
        why=f"HTTP status {status} at the last of {tries} tries",
        fix="wait, lower concurrency, or give the server more capacity",
    )


def misfit(where: str, found: int, expected: int) -> ServiceError:
    """Vectors of another length."""
    return ServiceError(
        f"the model server at {where} gives vectors of another length",
        code="MS-4067",
        why=f"{found} numbers, {expected} expected",
        fix="correct embedder.model or embedder.dims; another model needs a new version of each index",
    )


def nameless() -> ConfigError:
    """A model without a name."""
    return ConfigError(
        "the remote embedder has no model's name",
        code="MS-3051",
        why="vectors are kept under the model's name, and are never compared with another's",
        origin="embedder.model",
        fix="set embedder.model",
    )


def unreadable(path: str, error: Exception) -> ConfigError:
    """A tokenizer that cannot be read."""
    return ConfigError(
        f"the tokenizer {path!r} cannot be read",
        code="MS-3052",
        why=(str(error).splitlines() or [type(error).__name__])[0][:_LONGEST],
        origin="embedder.tokenizer",
        fix="let it name the tokenizer.json of the model, or leave it out",
    )
