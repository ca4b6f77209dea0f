"""The vector stores put to a trial on the rows of the user's own index, which is only read."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import msgspec

from mainspring.choose.decide import outcomes_of
from mainspring.choose.discover import adapters, is_installed, named_object
from mainspring.choose.services import Services, adapter_settings
from mainspring.config.settings import Setting, Settings, load_settings
from mainspring.declare.data import did_you_mean
from mainspring.errors import MainspringError, UsageError
from mainspring.lazy import lazy
from mainspring.ports.adapter import Adapter
from mainspring.ports.vector_store import VectorStore
from mainspring.rag.choosing import Report, Rows, compare
from mainspring.rag.shape import collection

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = lazy("numpy")

__all__ = ["Candidate", "Candidates", "Questions", "Trial", "candidates", "held_out", "read_rows", "try_stores"]

_PORT = "vectors"
_PAGE = 1_000
_QUESTIONS = 100
_WORDS = 8


class Candidate(msgspec.Struct, frozen=True):
    """A store that can be measured: its adapter, the settings it is opened with, and where those come from."""

    adapter: Adapter
    settings: object
    origin: str


class Candidates(msgspec.Struct, frozen=True):
    """The stores that can be measured, and why others cannot, by name."""

    found: tuple[Candidate, ...]
    left_out: Mapping[str, str]


class Questions(msgspec.Struct, frozen=True):
    """What is asked: float32[m, dims] of unit length, and the words of each, or no words at all."""

    vectors: npt.NDArray[np.float32]
    words: tuple[str, ...]


class Trial(msgspec.Struct, frozen=True):
    """What a trial has found.

    Attributes:
        index: the index whose rows were used.
        version: its version that answers.
        current: the adapter that holds it.
        of: how many rows the version has.
        questions: how many questions were put.
        held_out: whether the questions' rows were not indexed; in a small index they are.
        report: the figures.
        left_out: why a store was not measured, by its name.
    """

    index: str
    version: int
    current: str
    of: int
    questions: int
    held_out: bool
    report: Report
    left_out: Mapping[str, str]


def candidates(services: Services, given: Mapping[str, str] = MappingProxyType({})) -> Candidates:
    """The installed adapters that can be measured: embedded ones, and those whose URL is given or in any profile.

    Args:
        services: the project's ports; the active profile is looked at first.
        given: URLs by adapter name, each plain or a reference to a secret.

    Raises:
        UsageError: MS-2694, a name is no adapter of vectors; MS-2698, the store is embedded; MS-2699, its URL does
            not fit it.
        ConfigError: MS-3007, the secret that a given URL refers to is not there.
    """
    known = [adapter for adapter in adapters() if adapter.port == _PORT]
    _all_known(given, known)
    profiles = list(_profiles(services.settings))
    found, left_out = [], {}
    for adapter in known:
        missing = [module for module in adapter.modules if not is_installed(module)]
        if missing:
            left_out[adapter.name] = f"{', '.join(missing)} missing: pip install 'mainspring[{adapter.extra}]'"
            continue
        try:
            candidate = _candidate(adapter, services.settings, profiles, given.get(adapter.name))
        except MainspringError as error:
            if adapter.name in given:
                raise
            left_out[adapter.name] = f"{error.what}: {error.why}" if error.why else error.what
            continue
        if candidate is None:
            scheme = adapter.schemes[0] if adapter.schemes else "scheme"
            left_out[adapter.name] = f"no profile has its url: --store {adapter.name}={scheme}://..."
        else:
            found.append(candidate)
    return Candidates(tuple(found), left_out)


def _all_known(given: Mapping[str, str], known: list[Adapter]) -> None:
    by_name = {adapter.name: adapter for adapter in known}
    for name in given:
        adapter = by_name.get(name)
        if adapter is None:
            raise UsageError(
                f"no vector store is called {name!r}", code="MS-2694", origin="--store", fix=did_you_mean(name, by_name)
            )
        if adapter.embedded:
            raise UsageError(
                f"{name} takes no url",
                code="MS-2698",
                why="it works inside the process, and is measured without being named",
                origin="--store",
                fix=f"leave --store {name}=... out",
            )


def _profiles(active: Settings) -> Iterator[Settings]:
    """The settings under each profile, the active one first."""
    yield active
    for name in ("dev", *active.profiles):
        if name != active.profile:
            yield load_settings(active.project, profile=name, environment=os.environ)


def _candidate(adapter: Adapter, active: Settings, profiles: list[Settings], url: str | None) -> Candidate | None:
    if url is not None:
        return _by_url(adapter, active, url)
    for settings in profiles:
        (outcome,) = outcomes_of(_PORT, [adapter], settings, is_installed)
        configured = settings.setting(f"{_PORT}.adapter") or settings.setting(f"{_PORT}.url")
        if outcome.fits and configured is not None:
            return Candidate(adapter, adapter_settings(adapter, settings), configured.origin)
    if adapter.embedded:
        return Candidate(adapter, adapter_settings(adapter, _with(active, {})), "default")
    return None


def _by_url(adapter: Adapter, active: Settings, url: str) -> Candidate:
    settings = _with(active, {f"{_PORT}.url": Setting(f"{_PORT}.url", url, "--store")})
    settings.secret(f"{_PORT}.url")
    (outcome,) = outcomes_of(_PORT, [adapter], settings, is_installed)
    if not outcome.fits:
        raise UsageError(
            f"the url of --store {adapter.name}=... does not fit it",
            code="MS-2699",
            why=next(one.message for one in outcome.conditions if not one.ok),
            origin="--store",
            fix=f"write {' or '.join(f'{scheme}://...' for scheme in adapter.schemes)}",
        )
    return Candidate(adapter, adapter_settings(adapter, settings), "--store")


def _with(settings: Settings, own: Mapping[str, Setting]) -> Settings:
    """The settings with nothing else said of vector stores."""
    others = {key: item for key, item in settings.values.items() if not key.startswith(f"{_PORT}.")}
    return msgspec.structs.replace(settings, values=MappingProxyType(others | dict(own)))


def read_rows(
    services: Services, index: str, limit: int, progress: Callable[[str], None] = lambda _: None
) -> tuple[Rows, int, int]:
    """The rows of the version that answers, at most `limit` of them by an even sample; nothing is written.

    Returns:
        The rows, the version, and how many rows it has in all.

    Raises:
        UsageError: MS-2695, nothing of the index answers yet; MS-2696, it has no rows; MS-2697, another store than
            the profile's holds it.
        ServiceError: as the manifest and the store raise.
    """
    live = services.manifest.live(index)
    version = next((one for one in services.manifest.versions(index) if one.version == live), None)
    if version is None:
        raise UsageError(
            f"index {index!r} has not been built",
            code="MS-2695",
            why=f"no version of it answers in profile {services.settings.profile!r}",
            origin=f"/index/{index}",
            fix="build it first: mainspring apply",
        )
    chosen, holder = services.decision(_PORT).chosen.name, str(version.spec.get("store", ""))
    if holder != chosen:
        raise UsageError(
            f"version {live} of index {index!r} is in {holder}",
            code="MS-2697",
            why=f"profile {services.settings.profile!r} has {chosen}",
            origin=f"/index/{index}",
            fix="name the profile that built it with --profile, or build it here: mainspring apply",
        )
    place, store = collection(index, version.version), services.vectors
    total = store.count(place)
    if not total:
        raise UsageError(
            f"index {index!r} is empty",
            code="MS-2696",
            why="none of its documents has text that could be read",
            origin=f"/index/{index}",
            fix=f"mainspring show index/{index} tells what could not be read; then mainspring apply",
        )
    return _sampled(store, place, total, limit, progress), version.version, total


def _sampled(store: VectorStore, place: str, total: int, limit: int, progress: Callable[[str], None]) -> Rows:
    wanted: set[int] | None = None
    if limit < total:
        wanted = set(np.random.default_rng(0).choice(total, limit, replace=False).tolist())
    ids, vectors, texts = [], [], []
    cursor, seen = None, 0
    while True:
        page = store.scroll(place, None, cursor, _PAGE, fields=("text",), vectors=True)
        for point in page.points:
            if wanted is None or seen in wanted:
                ids.append(point.id)
                vectors.append(np.asarray(point.vector, np.float32))
                texts.append(str(point.payload.get("text", "")))
            seen += 1
        cursor = page.cursor
        if cursor is None:
            break
        if seen % (10 * _PAGE) == 0:
            progress(f"{seen:,} of {total:,} rows read")
    return Rows(ids, np.stack(vectors), texts if any(texts) else ())


def held_out(rows: Rows, count: int = _QUESTIONS) -> tuple[Rows, Questions, bool]:
    """Questions that are like the rows: some of the rows, left out of what is indexed when there are enough.

    Returns:
        The rows to index, the questions, and whether those are not among the rows.
    """
    total = len(rows.ids)
    order = np.random.default_rng(1).permutation(total)
    apart = total >= 10 * count
    chosen, kept = order[: min(count, total)], np.sort(order[count:] if apart else order)
    texts = rows.texts
    words = tuple(" ".join(re.findall(r"\w+", texts[place])[:_WORDS]) for place in chosen) if texts else ()
    questions = Questions(rows.vectors[chosen], words if all(words) else ())
    left = Rows([rows.ids[n] for n in kept], rows.vectors[kept], [texts[n] for n in kept] if texts else ())
    return left, questions, apart


def try_stores(
    services: Services,
    index: str,
    found: Candidates,
    *,
    limit: int,
    k: int = 10,
    rounds: int = 3,
    progress: Callable[[str], None] = lambda _: None,
) -> Trial:
    """Measure each store on the index's rows.

    Embedded stores work in a folder of their own beside the project's state, which is removed whatever happens;
    in a service the trial's index is dropped. The index itself is only read.

    Raises:
        UsageError: MS-2695 to MS-2697, as `read_rows`.
        ServiceError: as the store of the index raises.
    """
    rows, version, total = read_rows(services, index, limit, progress)
    kept, questions, apart = held_out(rows)
    with _opened(services.state, found) as (stores, unopened):
        report = compare(stores, kept, questions.vectors, words=questions.words, k=k, rounds=rounds, progress=progress)
    left_out = {**found.left_out, **unopened, **report.failed}
    current = services.decision(_PORT).chosen.name
    return Trial(index, version, current, total, len(questions.vectors), apart, report, left_out)


@contextmanager
def _opened(state: Path, found: Candidates) -> Iterator[tuple[Mapping[str, VectorStore], Mapping[str, str]]]:
    """The stores, each in a folder of its own; and why some cannot be opened."""
    stores: dict[str, VectorStore] = {}
    failed: dict[str, str] = {}
    state.mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="bench-", dir=state, ignore_cleanup_errors=True)
        )
        for candidate in found.found:
            name = candidate.adapter.name
            opening = cast("Callable[[object, Path], VectorStore]", named_object(candidate.adapter.factory))
            try:
                stores[name] = opening(candidate.settings, Path(folder) / name)
            except MainspringError as error:
                failed[name] = f"{error.what}: {error.why}" if error.why else error.what
                continue
            stack.callback(stores[name].close)
        yield stores, failed
