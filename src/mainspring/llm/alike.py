"""The answers to questions that are alike, given again: to who has asked before, and to nobody else."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from mainspring.lazy import lazy
from mainspring.llm.cache import cache_key, kept_size
from mainspring.llm.values import Call
from mainspring.ports.embedder import Embedder
from mainspring.ports.llm import Event, Generation, Message

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
else:
    np = lazy("numpy")

__all__ = ["Alike", "AlikeCache", "Question", "question_of", "telling_words"]

_EDGES = ".,;:!?()[]{}<>\"'`*_…“”„‘’«»¿¡"  # noqa: RUF001 - signs that stand around words
_WITHIN = str.maketrans("", "", "'’-")  # noqa: RUF001 - and those that stand within them
_TURNS = frozenset({"no", "not", "never", "without", "except", "neither", "nor", "cannot"})
_CHARACTERS_A_TOKEN = 16
"""Texts with more are not looked at: their tokens would have to be uncommonly long to be few enough."""
_WAITING = 32
_LONGEST_S = 1.0
_SAID_AGAIN_S = 60.0
_IN_A_SCOPE = 1024


class Question(msgspec.Struct, frozen=True):
    """What is asked, as it is compared.

    Attributes:
        scope: 32 bytes over everything that must be equal: who asks, and all of the request but its last words.
        text: the last words, which may be others that mean the same.
    """

    scope: bytes
    text: str


def telling_words(text: str) -> tuple[str, ...]:
    """The words of a text that change its meaning and hardly its vector, in their order.

    Numbers, names with digits, addresses, paths and the like (whatever has a sign that is no letter), and the English
    words that turn a question round. Where they are others, questions are not alike.
    """
    found = []
    for part in text.split():
        word = part.strip(_EDGES).lower()
        if word and (word in _TURNS or word.endswith(("n't", "n’t")) or not word.translate(_WITHIN).isalpha()):  # noqa: RUF001
            found.append(word)
    return tuple(found)


def _identity(call: Call) -> tuple[str, str, str] | None:
    """Who asks, or None where that is not known: what a client without a key says of its user proves nothing."""
    caller = call.caller
    if caller.key is not None:
        return "key", caller.key.id, caller.user
    return ("inside", "", caller.user) if call.api == "inside" and caller.user else None


def question_of(request: Generation, call: Call, route: str, version: str) -> Question | None:
    """A request as a question, or None where only an equal one may have its answer.

    That is a request by nobody who is known, with tools or a schema, with a picture, or that does not end with what a
    user says.

    Args:
        request: what is asked, after the input guards.
        call: by whom, and from which declared prompt.
        route: the public name.
        version: of the models that may answer.
    """
    who = _identity(call)
    last = request.messages[-1] if request.messages else None
    if who is None or last is None or last.role != "user" or request.tools or request.schema is not None:
        return None
    text = last.text
    if not text.strip() or not all(isinstance(part, str) for part in last.content):
        return None
    rest = msgspec.structs.replace(request, messages=(*request.messages[:-1], Message("user", name=last.name)))
    equal = cache_key(rest, route, version, call.prompt, call.caller.tenant)
    scope = hashlib.blake2b(equal, digest_size=32)
    scope.update(msgspec.msgpack.encode((who, telling_words(text))))
    return Question(scope.digest(), text)


class _Kept(msgspec.Struct, frozen=True):
    until: float
    size: int
    vector: Vector
    events: tuple[Event, ...]


class _Scope:
    __slots__ = ("kept", "vectors")

    def __init__(self) -> None:
        self.kept: deque[_Kept] = deque()
        self.vectors: Vector | None = None

    def nearest(self, vector: Vector) -> tuple[int, float]:
        """Place and cosine of what is most alike."""
        if self.vectors is None:
            self.vectors = np.stack([one.vector for one in self.kept])
        likeness = self.vectors @ vector
        place = int(likeness.argmax())
        return place, float(likeness[place])


class AlikeCache:
    """Whole answers by the scope and the vector of their question; scopes that nobody asks in are forgotten first.

    Args:
        now: a clock in seconds that only goes forward.
        most_bytes: room for all answers and vectors together.
    """

    __slots__ = ("_bytes", "_most", "_now", "_scopes", "hits", "misses")

    def __init__(self, now: Callable[[], float], most_bytes: int = 64 << 20) -> None:
        self._now = now
        self._most = most_bytes
        self._bytes = 0
        self._scopes: OrderedDict[bytes, _Scope] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def get(self, scope: bytes, vector: Vector, least: float) -> tuple[tuple[Event, ...], float] | None:
        """The answer to the most alike question of a scope, and its cosine, where that is `least` or more."""
        self._forget_old(scope)
        found = self._scopes.get(scope)
        if found is not None:
            self._scopes.move_to_end(scope)
            place, likeness = found.nearest(vector)
            if likeness >= least:
                self.hits += 1
                return found.kept[place].events, min(likeness, 1.0)
        self.misses += 1
        return None

    def put(self, scope: bytes, vector: Vector, events: Sequence[Event], seconds: float) -> bool:
        """Keep a whole answer; False where it may not be, as in the cache of equal requests."""
        answer = kept_size(events)
        size = 0 if answer is None else answer + vector.nbytes
        if not size or size > self._most // 8:
            return False
        self._forget_old(scope)
        found = self._scopes.setdefault(scope, _Scope())
        self._scopes.move_to_end(scope)
        found.kept.append(_Kept(self._now() + seconds, size, vector, tuple(events)))
        found.vectors = None
        self._bytes += size
        if len(found.kept) > _IN_A_SCOPE:
            self._drop(scope)
        while self._bytes > self._most:
            self._drop(next(iter(self._scopes)))
        return True

    def clear(self) -> None:
        """Forget all answers."""
        self._scopes.clear()
        self._bytes = 0

    def _forget_old(self, scope: bytes) -> None:
        """All answers of a scope are kept equally long, so that the first one's time is over first."""
        now = self._now()
        while (found := self._scopes.get(scope)) is not None and found.kept[0].until <= now:
            self._drop(scope)

    def _drop(self, scope: bytes) -> None:
        """Forget the oldest answer of a scope."""
        found = self._scopes[scope]
        self._bytes -= found.kept.popleft().size
        found.vectors = None
        if not found.kept:
            del self._scopes[scope]


class Alike:
    """Makes vectors of questions, in a thread of its own: an embedder takes its time, and may be at another place.

    Args:
        embedder: called for it in that thread, at the first question.
        told: told why questions cannot be compared, once a minute at most.

    Attributes:
        failed: questions that could not be compared, for whatever reason.
    """

    def __init__(self, embedder: Callable[[], Embedder], told: Callable[[str], None] = lambda line: None) -> None:
        self._embedder = embedder
        self._told = told
        self._said = float("-inf")
        self._waiting = 0
        self._thread: ThreadPoolExecutor | None = None
        self.failed = 0

    async def vector(self, text: str) -> Vector | None:
        """The vector of a question, of length 1.

        None where it would not stand for the whole text, or is not there within a second: the question is then one
        that nobody has asked.
        """
        if self._waiting >= _WAITING:
            self.failed += 1
            return None
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "mainspring-alike")
        self._waiting += 1
        try:
            work = asyncio.wrap_future(self._thread.submit(self._made, text))
            return await asyncio.wait_for(work, _LONGEST_S)
        except TimeoutError:
            self._failed(f"the embedder took longer than {_LONGEST_S:g} s")
        except Exception as error:  # an embedder's fault costs an answer that could be given again, and no request
            self._failed(f"{type(error).__name__}: {error}")
        finally:
            self._waiting -= 1
        return None

    def _made(self, text: str) -> Vector | None:
        embedder = self._embedder()
        most = embedder.max_tokens
        if len(text) > most * _CHARACTERS_A_TOKEN or embedder.count([text])[0] > most:
            return None  # the vector would be of its beginning, which others may have too
        vector = np.asarray(embedder.embed_query(text), np.float32)
        length = float(np.linalg.norm(vector))
        return vector / np.float32(length) if 0.0 < length < float("inf") else None

    def _failed(self, why: str) -> None:
        self.failed += 1
        if time.monotonic() - self._said >= _SAID_AGAIN_S:
            self._said = time.monotonic()
            self._told(f"questions to language models are not compared: {why}")
