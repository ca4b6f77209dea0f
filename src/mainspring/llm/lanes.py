"""A route made ready: its upstreams, retry budget, gate, cache and accounts; built once, at the start."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from mainspring.llm.alike import AlikeCache
from mainspring.llm.cache import ExactCache
from mainspring.llm.limits import Account
from mainspring.llm.upstreams import RetryBudget, Upstream
from mainspring.llm.values import Route
from mainspring.llm.waiting import Gate
from mainspring.ports.llm import Capabilities, Generation

__all__ = ["Lane", "missing", "prefix_of", "share_of"]

_PREFIX = 512
"""Characters of a prompt's beginning that decide which of several idle upstreams it goes to."""


class Lane:
    """A route as the pipeline uses it.

    Args:
        route: as declared.
        account: of all who use it, where it has limits.
        now: a clock in seconds that only goes forward.

    Attributes:
        fallback: the lanes that are tried after this one.
        split: lanes with the end of each one's share of users, in [0, 1].
    """

    __slots__ = (
        "account",
        "alike",
        "budget",
        "cache",
        "fallback",
        "gate",
        "route",
        "split",
        "upstreams",
        "versions",
    )

    def __init__(self, route: Route, account: Account | None, now: Callable[[], float]) -> None:
        self.route = route
        self.account = account
        self.upstreams = tuple(Upstream(target, now) for target in route.targets)
        self.budget = RetryBudget(route.retry.budget, route.retry.least)
        self.gate = None if route.concurrent is None else Gate(route.concurrent, route.queue)
        self.cache = ExactCache(now) if route.cache_s > 0 else None
        self.alike = AlikeCache(now) if self.cache is not None and route.alike is not None else None
        self.fallback: tuple[Lane, ...] = ()
        self.split: tuple[tuple[float, Lane], ...] = ()
        self.versions = "\0".join(f"{target.name}/{target.model}/{target.version}" for target in route.targets)

    def for_user(self, user: str) -> Lane:
        """The lane that answers a user: always the same one while the shares stay."""
        if not self.split:
            return self
        share = share_of(user, self.route.name)
        return next((lane for end, lane in self.split if share < end), self)

    def able(self, request: Generation) -> tuple[Upstream, ...] | str:
        """The upstreams that can answer a request, or why none can."""
        if _plain(request) and self._all_chat():
            return self.upstreams
        lacks = [missing(upstream.target.engine.capabilities(), request) for upstream in self.upstreams]
        able = tuple(upstream for upstream, lack in zip(self.upstreams, lacks, strict=True) if lack is None)
        return able or next((lack for lack in lacks if lack is not None), "nobody answers")

    def _all_chat(self) -> bool:
        for upstream in self.upstreams:  # noqa: SIM110 - a loop costs half of what `all` over a generator does
            if not upstream.target.engine.capabilities().chat:
                return False
        return True


def share_of(user: str, name: str) -> float:
    """Where a user stands in [0, 1) for one split; independent of every other split."""
    digest = hashlib.blake2b(f"{name}\0{user}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def prefix_of(request: Generation) -> bytes:
    """The prompt's beginning."""
    if request.messages:
        first = request.messages[0].content
        text = first[0] if first and isinstance(first[0], str) else ""
        if len(text) < _PREFIX and len(request.messages) > 1:
            text = f"{text}\0{request.messages[1].text}"
        return text[:_PREFIX].encode()
    return str(request.prompt)[:_PREFIX].encode()


def _plain(request: Generation) -> bool:
    sampling = request.sampling
    if request.tools or request.schema is not None or sampling.logprobs is not None or sampling.n != 1:
        return False
    return bool(request.messages) and not _pictures(request)


def missing(can: Capabilities, request: Generation) -> str | None:
    """What an engine cannot do that a request needs, or None."""
    sampling = request.sampling
    needs: Sequence[tuple[bool, bool, str]] = (
        (bool(request.messages), can.chat, "this model has no chat template: use /v1/completions"),
        (request.prompt is not None, can.completion, "this model takes conversations only: use /v1/chat/completions"),
        (bool(request.tools), can.tools or can.grammar, "this model cannot call tools"),
        (request.schema is not None, can.grammar, "this model cannot be held to a JSON schema"),
        (sampling.logprobs is not None, can.logprobs, "this model tells no log probabilities"),
        (sampling.n > 1, can.choices, "this model gives one choice a request: n must be 1"),
        (_pictures(request), can.images, "this model sees no pictures"),
    )
    return next((lack for needed, has, lack in needs if needed and not has), None)


def _pictures(request: Generation) -> bool:
    for message in request.messages:
        for part in message.content:
            if type(part) is not str:
                return True
    return False
