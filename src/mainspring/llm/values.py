"""What a gateway is made of, as plain values: routes over targets, limits, keys, and one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from mainspring.llm.guards import InputGuard, OutputGuard
from mainspring.ports.llm import Engine, Generation

__all__ = ["Api", "Call", "Caller", "Key", "Limits", "Retry", "Route", "Target", "Timeouts"]

Api = Literal["chat", "completions", "embeddings", "responses", "messages", "inside", "passthrough"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a key, a tenant or a model may use; None is without limit.

    Attributes:
        requests: requests in a window.
        tokens: tokens of prompts and answers together in a window.
        window_s: the window's length in seconds; windows follow each other without a gap.
        concurrent: requests under way at once.
        money_micro: micro-units of money in a period.
        period_s: the period's length in seconds.
    """

    requests: int | None = None
    tokens: int | None = None
    window_s: float = 60.0
    concurrent: int | None = None
    money_micro: int | None = None
    period_s: float = 30 * 86_400.0


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A client's key; only its hash is kept.

    Attributes:
        id: what logs and traces call it.
        digest: `mainspring.llm.keys.digest_of` the secret, 32 bytes.
        tenant: whose it is.
        limits: its own limits, besides its tenant's.
        models: the names that it may use; None is every one.
        expires_ns: UTC nanoseconds since 1970 after which it is refused, or None.
    """

    id: str
    digest: bytes
    tenant: str = ""
    limits: Limits = Limits()
    models: frozenset[str] | None = None
    expires_ns: int | None = None

    def __repr__(self) -> str:
        return f"Key(id={self.id!r}, tenant={self.tenant!r})"


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long a target may take, in seconds.

    Attributes:
        accept: from the request until it accepts (`Start`).
        between: from one event to the next; the first token included.
        total: for all of it.
    """

    accept: float = 60.0
    between: float = 60.0
    total: float = 600.0


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often a request is tried again; never after its first byte was sent.

    Attributes:
        attempts: most tries of one request at one route.
        budget: retries as a share of requests, so that a fault is not made worse.
        least: retries that are allowed whatever the share says.
        wait_s: the first pause in seconds, doubled each time, where the target does not ask for one.
        longest_s: pauses that a target asks for are kept up to this; a longer one is handed to the client.
    """

    attempts: int = 3
    budget: float = 0.1
    least: int = 3
    wait_s: float = 0.05
    longest_s: float = 10.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that can answer for a route.

    Attributes:
        name: the upstream, in traces.
        engine: started by whoever made it.
        model: the engine's own name of the model.
        version: which version of the model; part of every cache key.
        weight: its share of the load beside its neighbours.
        provider: whose prices apply.
    """

    name: str
    engine: Engine
    model: str
    version: str = ""
    weight: float = 1.0
    provider: str = ""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A model's name as clients know it, and how requests for it are answered.

    Attributes:
        name: what clients write in ``model``.
        targets: who can answer.
        fallback: routes that are tried, in order, when no target of this one answers.
        split: other routes with the share of users that each answers instead.
        limits: of all who use it together.
        account: whose limits these are, where several routes share them; empty is this route alone.
        timeouts: of its targets.
        retry: of its targets.
        hedge_s: after so many seconds without a token a second target is asked too, and the faster one answers.
        concurrent: requests at its targets at once; None is without limit.
        queue: requests that may wait for their turn; more are refused with 429.
        cache_s: how long the answer to an equal request is given again, in seconds; 0 is never.
        cache_sampled: whether answers that were drawn (temperature other than 0) may be given again too.
        alike: the least cosine of the vectors of two questions of one caller that have one answer, or None: only equal
            requests have. Needs `cache_s`.
        max_tokens: most tokens of an answer that does not ask for a number.
        excess: what becomes of a request for more tokens than the context has room for.
        temperature: of requests that do not say, or None.
        input_guards: see requests before they are sent.
        output_guards: see answers before they are.
        bodies: the share of requests whose redacted texts are kept, in [0, 1]; faults and slow ones always are then.
        created: seconds since 1970, for the list of models.
        owner: for the list of models.
    """

    name: str
    targets: tuple[Target, ...]
    fallback: tuple[str, ...] = ()
    split: tuple[tuple[str, float], ...] = ()
    limits: Limits = Limits()
    account: str = ""
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    hedge_s: float | None = None
    concurrent: int | None = None
    queue: int = 1024
    cache_s: float = 0.0
    cache_sampled: bool = False
    alike: float | None = None
    max_tokens: int | None = None
    excess: Literal["clamp", "refuse"] = "clamp"
    temperature: float | None = None
    input_guards: Sequence[InputGuard] = ()
    output_guards: Sequence[OutputGuard] = ()
    bodies: float = 0.0
    created: int = 0
    owner: str = "mainspring"


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Who asks, as far as is known.

    Attributes:
        key: its key, or None where keys are not asked for and within the process.
        tenant: whose budget it is.
        user: an opaque name of the end user; splits are by its hash, and nothing else is kept of it.
    """

    key: Key | None = None
    tenant: str = ""
    user: str = ""


class Call(msgspec.Struct, gc=False):
    """One request on its way through the gateway.

    Attributes:
        generation: what is asked; ``model`` is a route's name.
        caller: who asks.
        api: the wire that it came by.
        stream: whether the answer goes out piece by piece; then nothing is retried after its first event.
        trace: trace id and the caller's span id, as ``traceparent`` gave them.
        prompt: the id of the declared prompt that it was made from, or empty.
    """

    generation: Generation
    caller: Caller = Caller()
    api: Api = "inside"
    stream: bool = True
    trace: tuple[str, str] = ("", "")
    prompt: str = ""
