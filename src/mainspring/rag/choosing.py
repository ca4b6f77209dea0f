"""Which vector store fits: the same rows and questions put to each, judged against the true nearest."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from mainspring.errors import MainspringError
from mainspring.lazy import lazy
from mainspring.ports.vector_store import Eq, Field, Filter, Point, Query, Schema, VectorStore

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = lazy("numpy")

__all__ = [
    "SHARE",
    "Asked",
    "Build",
    "Measured",
    "Report",
    "Rows",
    "Usage",
    "asked",
    "build",
    "compare",
    "measure",
    "nearest",
    "recommend",
    "usage",
]

SHARE = "bench.share"
"""The field that stands for a filter: of 100 values, each on one row in a hundred."""

TARGETS = (0.9, 0.95, 0.97, 0.99, 0.995)
_ENOUGH, _ENOUGH_FILTERED = 0.95, 0.98
_BATCH, _TOLD = 1_000, 10_000


class Rows(msgspec.Struct, frozen=True):
    """What is indexed.

    Attributes:
        ids: a UUID as text for each row.
        vectors: float32[n, dims], of unit length.
        texts: the words of each row; empty for none.
    """

    ids: Sequence[str]
    vectors: npt.NDArray[np.float32]
    texts: Sequence[str] = ()


class Usage(msgspec.Struct, frozen=True):
    """What something took: CPU seconds of this process and of its children, and seconds on the clock."""

    cpu: float
    wall: float


class Build(msgspec.Struct, frozen=True):
    """An index that was built: what writing and optimising took, and the bytes of disk."""

    write: Usage
    optimise: Usage
    bytes_allocated: int

    @property
    def cpu(self) -> float:
        """CPU seconds of all of it."""
        return self.write.cpu + self.optimise.cpu


class Asked(msgspec.Struct, frozen=True):
    """Questions that were put.

    Attributes:
        target: the recall that was asked for.
        recall: share of the true nearest that was found, over all questions.
        complete: share of the answers that had k hits.
        used: what a question took.
        asked_for: k, the hits that were asked for.
        why_fewer: why an answer had fewer, as the store says; empty when none had.
    """

    target: float
    recall: float
    complete: float
    used: Usage
    asked_for: int = 0
    why_fewer: str = ""

    @property
    def per_cpu_second(self) -> float:
        """Questions that one CPU second of this process answers."""
        return 1 / self.used.cpu if self.used.cpu else 0.0

    @property
    def per_second(self) -> float:
        """Questions a second, one after the other."""
        return 1 / self.used.wall if self.used.wall else 0.0


class Measured(msgspec.Struct, frozen=True):
    """One store on these rows.

    Attributes:
        store: its name.
        elsewhere: whether it works in another process, whose CPU and memory are not in these figures.
        build: what building took.
        plain: the cheapest way that reached enough recall, or the best there was.
        filtered: the same under a filter that one row in a hundred fulfils.
        hybrid: what a question by vector and words takes, with its recall left out; None without words.
        memory: bytes that the process grew by; 0 for a store elsewhere.
    """

    store: str
    elsewhere: bool
    build: Build
    plain: Asked
    filtered: Asked
    hybrid: Asked | None
    memory: int


class Report(msgspec.Struct, frozen=True):
    """All stores side by side.

    Attributes:
        rows: how many rows were indexed.
        dims: numbers of a vector.
        measured: each store's figures.
        recommended: the name of the one to take; empty when none finds enough.
        why: in one sentence a reason.
        failed: why a store could not be measured, by its name.
    """

    rows: int
    dims: int
    measured: tuple[Measured, ...]
    recommended: str
    why: tuple[str, ...]
    failed: Mapping[str, str] = {}


def compare(
    stores: Mapping[str, VectorStore],
    rows: Rows,
    queries: npt.NDArray[np.float32],
    *,
    words: Sequence[str] = (),
    k: int = 10,
    rounds: int = 3,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Build an index of these rows in each store, ask each the same, and recommend one.

    The indexes are called ``bench-`` and are dropped afterwards. Stores are measured one after the other; nothing
    else should work this process meanwhile. A store that fails is told as such, and the others go on.

    Args:
        stores: opened stores by name.
        rows: the user's own chunks: ids, vectors, texts.
        queries: float32[m, dims], of unit length: past questions, or vectors of rows.
        words: the text of each query, for hybrid search; empty for none.
        k: hits of a question.
        rounds: how often all questions are put; the cheapest round counts.
        progress: told what is being done.
    """
    shares = shares_of(len(rows.ids))
    found, failed = [], {}
    for name, store in stores.items():
        progress(f"{name}: {len(rows.ids):,} rows are indexed")
        try:
            found.append(measure(name, store, rows, shares, queries, words, k, rounds, progress))
        except MainspringError as error:
            failed[name] = f"{error.what}: {error.why}" if error.why else error.what
            progress(f"{name}: {failed[name]}")
    chosen, why = recommend(found)
    return Report(len(rows.ids), int(rows.vectors.shape[1]), tuple(found), chosen, why, failed)


def shares_of(count: int) -> npt.NDArray[np.int64]:
    """The share of each row, int64[count]: 100 values in no order that the rows have."""
    return np.random.default_rng(0).permutation(count) % 100


def measure(
    name: str,
    store: VectorStore,
    rows: Rows,
    shares: npt.NDArray[np.int64],
    queries: npt.NDArray[np.float32],
    words: Sequence[str] = (),
    k: int = 10,
    rounds: int = 3,
    progress: Callable[[str], None] = lambda _: None,
) -> Measured:
    """One store on these rows; its index is dropped afterwards, also when this is stopped."""
    index = f"bench-{time.time_ns():x}"
    before = resident()
    try:
        built = build(store, index, rows, shares, lambda text: progress(f"{name}: {text}"))
        progress(f"{name}: {len(queries):,} questions are put, {rounds} times each way")
        truth = nearest(rows.vectors, queries, k)
        share = min(7, len(rows.ids) - 1)  # fewer than eight rows have the first shares only
        some = Eq(SHARE, share)
        where = np.flatnonzero(shares == share)
        filtered_truth = where[nearest(rows.vectors[where], queries, k)]
        plain = cheapest(store, index, rows.ids, queries, truth, None, rounds)
        filtered = cheapest(store, index, rows.ids, queries, filtered_truth, some, rounds)
        both = asked(store, index, rows.ids, queries, truth, None, plain.target, rounds, words) if len(words) else None
        elsewhere = store.capabilities().readers == "many"
        memory = 0 if elsewhere else max(0, resident() - before)
        return Measured(name, elsewhere, built, plain, filtered, both, memory)
    finally:
        store.drop(index)


def build(
    store: VectorStore,
    index: str,
    rows: Rows,
    shares: npt.NDArray[np.int64],
    progress: Callable[[str], None] = lambda _: None,
) -> Build:
    """Write the rows in batches, flush, and build what makes searches fast."""
    dims = int(rows.vectors.shape[1])
    store.create(index, Schema(dims, fields=(Field(SHARE, "integer"),), text=bool(rows.texts), words=_mean(rows.texts)))
    with usage() as write:
        for start in range(0, len(rows.ids), _BATCH):
            store.upsert(index, list(_points(rows, shares, start)))
            if start and start % _TOLD == 0:
                progress(f"{start:,} of {len(rows.ids):,} rows written")
        store.flush(index)
    if len(rows.ids) > _TOLD:
        progress("what makes searches fast is built")
    with usage() as optimise:
        store.optimize(index)
        store.flush(index)
    return Build(write.found, optimise.found, store.stats(index).bytes_allocated)


def _mean(texts: Sequence[str]) -> float:
    return max(1.0, sum(len(text.split()) for text in texts) / len(texts)) if texts else 256.0


def _points(rows: Rows, shares: npt.NDArray[np.int64], start: int) -> Iterator[Point]:
    for n in range(start, min(start + _BATCH, len(rows.ids))):
        yield Point(rows.ids[n], rows.vectors[n], {SHARE: int(shares[n])}, rows.texts[n] if rows.texts else "")


def cheapest(
    store: VectorStore,
    index: str,
    ids: Sequence[str],
    queries: npt.NDArray[np.float32],
    truth: npt.NDArray[np.int64],
    filter: Filter | None,
    rounds: int,
) -> Asked:
    """The cheapest recall target whose answers hold enough of the true nearest, or the last that was tried."""
    least = _ENOUGH if filter is None else _ENOUGH_FILTERED
    for target in TARGETS:
        found = asked(store, index, ids, queries, truth, filter, target, rounds)
        if found.recall >= least:
            break
    return found


def asked(
    store: VectorStore,
    index: str,
    ids: Sequence[str],
    queries: npt.NDArray[np.float32],
    truth: npt.NDArray[np.int64],
    filter: Filter | None,
    target: float,
    rounds: int = 3,
    words: Sequence[str] = (),
) -> Asked:
    """Put all questions, in several rounds after one that warms up, and judge the answers.

    Args:
        store: the store.
        index: the index.
        ids: those of the rows, by place.
        queries: float32[m, dims].
        truth: the places of the true nearest, int64[m, k].
        filter: what is demanded of hits.
        target: the recall that is asked for.
        rounds: of which the cheapest counts.
        words: the text of each query, or empty.
    """
    texts: list[str | None] = [*words] or [None] * len(queries)
    wanted = [
        Query(dense=query, text=text, filter=filter, k=truth.shape[1], recall_target=target, fields=())
        for query, text in zip(queries, texts, strict=True)
    ]
    answers = [store.search(index, query) for query in wanted]
    true = [{ids[place] for place in places} for places in truth]
    hit = sum(len(near & {hit.id for hit in answer.hits}) for near, answer in zip(true, answers, strict=True))
    spent = []
    for _ in range(rounds):
        with usage() as used:
            for query in wanted:
                store.search(index, query)
        spent.append(Usage(used.found.cpu / len(wanted), used.found.wall / len(wanted)))
    complete = sum(answer.complete for answer in answers) / len(answers)
    notes = (note for answer in answers if not answer.complete for note in answer.notes)
    why = next((note.detail or note.code for note in notes), "" if complete == 1 else "the store does not say why")
    spent_least = min(spent, key=lambda one: one.cpu)
    return Asked(target, hit / max(1, truth.size), complete, spent_least, truth.shape[1], why)


def nearest(
    vectors: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], k: int, piece: int = 100_000
) -> npt.NDArray[np.int64]:
    """The places of the `k` rows with the greatest dot product, by looking at each, int64[m, k], the nearest first."""
    scores = np.empty((len(queries), 0), np.float32)
    places = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), piece):
        fresh = queries @ vectors[start : start + piece].T
        scores = np.hstack([scores, fresh])
        places = np.hstack([places, np.broadcast_to(np.arange(start, start + fresh.shape[1]), fresh.shape)])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, places = np.take_along_axis(scores, best, 1), np.take_along_axis(places, best, 1)
    return places


def recommend(measured: Sequence[Measured]) -> tuple[str, tuple[str, ...]]:
    """The store to take, and why: enough recall, with and without a filter; then questions a second; then the build.

    A store in another process cannot be compared by CPU, so questions a second, one after the other, decide where
    there is one among them.
    """
    if not measured:
        return "", ("no store could be measured",)
    good = [one for one in measured if one.plain.recall >= _ENOUGH and one.filtered.recall >= _ENOUGH_FILTERED]
    if not good:
        return "", ("no store finds enough: ask for a greater recall_target, or search exactly (1.0)",)
    remote = any(one.elsewhere for one in good)

    def speed(one: Measured) -> float:
        return one.plain.per_second if remote else one.plain.per_cpu_second

    fastest = max(good, key=speed)
    near = [one for one in good if speed(one) >= 0.8 * speed(fastest)]
    best = min(near, key=lambda one: one.build.write.wall + one.build.optimise.wall if remote else one.build.cpu)
    unit = "questions a second" if remote else "questions a CPU second"
    why = [f"{best.store} finds {best.plain.recall:.3f} of the true nearest at {speed(best):,.0f} {unit}"]
    why += [f"under a filter of 1 % it finds {best.filtered.recall:.3f}"]
    if best is not fastest:
        why.append(f"{fastest.store} answers {speed(fastest):,.0f}, and costs more to build")
    left_out = [one.store for one in measured if one not in good]
    if left_out:
        why.append(f"{', '.join(left_out)}: too little is found")
    return best.store, tuple(why)


class _Clock:
    """Takes the time of a block."""

    def __enter__(self) -> _Clock:
        self._began = (_cpu(), time.perf_counter())
        return self

    def __exit__(self, *_: object) -> None:
        self.found = Usage(_cpu() - self._began[0], time.perf_counter() - self._began[1])


def usage() -> _Clock:
    """A block whose use of CPU and clock is in ``found`` afterwards."""
    return _Clock()


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def resident() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
