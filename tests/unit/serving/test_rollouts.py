"""How rollouts are judged and carried on: no false stops, every death between two moves mended, moves parted by CAS."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc, betaln

from mainspring.adapters.sqlite.catalog import SqliteCatalog
from mainspring.catalog.rollouts import Rollout, begin, change, current, stop
from mainspring.declare.rollout import RolloutStep, read_rollout, read_share, read_versions, spell_step
from mainspring.errors import DeclarationError, RefusedError
from mainspring.monitoring.stats.canary import too_many
from mainspring.plan.graph import Plan
from mainspring.ports.catalog import Block, Catalog, Entity, Label
from mainspring.server.rollouts import quality
from mainspring.server.rollouts.deciding import label_version, promote_whole, roll_back_model, try_version
from mainspring.server.rollouts.drive import Before, Rollouts, Seen, following, monitor_of, seen_of
from mainspring.server.rollouts.judge import FIRST_LOOK, Losses, Verdict, judged, lag, moved
from mainspring.server.rollouts.ledger import Ledgers
from mainspring.serving.rollout.evidence import CELLS, Counted, cell_of, summed
from mainspring.serving.rollout.shadow import Differences
from mainspring.serving.rollout.split import Split
from mainspring.serving.table import ModelTable
from mainspring.serving.telemetry import SCORE_BUCKETS
from mainspring.serving.versions import ModelVersions
from mainspring.training.versions import champion_of, told

STEPS = (RolloutStep(0.05, 10), RolloutStep(0.25, 10))


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    found = SqliteCatalog(tmp_path / "catalog.db")
    for version in (1, 2, 3):
        found.add_entity(Entity(f"{version:032x}", "model", "late", version, f"d{version}", {}, version))
    promote_whole(found, "late", 1, "test")
    yield found
    found.close()


def cells(values: list[int]) -> list[int]:
    return np.bincount(values, minlength=CELLS).tolist()  # type: ignore[no-any-return]


def counted(times_us: np.ndarray[Any, Any], errors: int = 0) -> Counted:
    places = np.where(times_us > 1, 1 + np.floor(np.log2(np.maximum(times_us, 1)) * 8), 0).astype(int)
    assert places[:3].tolist() == [cell_of(one) for one in times_us[:3]]
    found, counts = np.unique(places, return_counts=True)
    latency = dict(zip(found.tolist(), counts.tolist(), strict=True))
    return Counted(len(times_us) + errors, errors, latency)


# -- what is declared ---------------------------------------------------------------------------------------------


def test_steps_are_read_and_spelt() -> None:
    steps = read_rollout(["shadow for 10m", "5% for 10m", "12.5% for 1h"])
    assert [(step.share, step.shadow) for step in steps] == [(0.0, True), (0.05, False), (0.125, False)]
    assert [spell_step(step) for step in steps] == ["shadow for 10m", "5% for 10m", "12.5% for 1h"]
    assert spell_step(RolloutStep(0.1)) == "10% until told"
    assert (read_share("10%"), read_share("0.1"), read_share(" 2.5 %")) == (0.1, 0.1, 0.025)
    for text in ("0%", "100%", "-1%", "1", "ten", "5", "", "1e-3"):
        with pytest.raises(ValueError, match="no share"):
            read_share(text)


@pytest.mark.parametrize(
    "steps", ["5% for 10m", ["5%"], ["0% for 1m"], ["100% for 1m"], ["25% for 1m", "5% for 1m"], [5], ["shadow"]]
)
def test_what_is_no_step_is_refused(steps: Any) -> None:
    with pytest.raises(DeclarationError) as caught:
        read_rollout(steps)
    assert caught.value.code == "MS-2720"


@pytest.mark.parametrize("versions", [0, -1, "newest", [0], ["1"], 1.5, True and [True], None])
def test_what_are_no_versions_is_refused(versions: Any) -> None:
    with pytest.raises(DeclarationError) as caught:
        read_versions(versions)
    assert caught.value.code == "MS-2721"


# -- judging ------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=60),
    st.lists(st.integers(0, 30), min_size=1, max_size=60),
    st.integers(0, 6),
)
def test_the_lag_is_the_greatest_difference_of_the_shares(one: list[int], other: list[int], shift: int) -> None:
    found = lag(cells(one), cells(other), shift)
    ends = range(CELLS - shift - 1)
    wanted = max(
        sum(value <= end for value in one) / len(one) - sum(value <= end + shift for value in other) / len(other)
        for end in ends
    )
    assert found == pytest.approx(wanted)


def test_a_version_that_is_no_worse_is_not_stopped_in_all_looks_of_all_rollouts() -> None:
    """With a chance of 5 % a rollout, of 200 at most 21 are stopped falsely, but for one in ten thousand times."""
    rng, stopped = np.random.default_rng(11), 0
    for _ in range(200):
        stable, canary = rng.lognormal(5, 1, 4000), rng.lognormal(5, 1, 1000)
        failed = rng.random(4000) < 0.03, rng.random(1000) < 0.03
        for share in np.linspace(0.05, 1, 12):
            n, m = int(4000 * share), int(1000 * share)
            verdict = judged(
                counted(stable[:n], int(failed[0][:n].sum())), counted(canary[:m], int(failed[1][:m].sum()))
            )
            if verdict.why:
                stopped += 1
                break
    assert stopped <= 21


@given(st.integers(1, 300), st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([0.05, 0.05 / 3, 0.3]))
def test_the_least_number_of_failures_that_is_too_many(failed: int, calls: int, others: int, q: float) -> None:
    """By the integral itself: half of it is taken where the whole would do, which stops later, never sooner."""
    found, share = too_many(failed, calls, others, q=q), calls / (calls + others)

    def over(own: int, part: float) -> float:
        """How far the logarithm of the ratio lies over its limit, with that part of the integral."""
        log = betaln(own + 1, failed - own + 1) - own * np.log(share) - (failed - own) * np.log1p(-share)
        return float(log + np.log(part) - np.log1p(-share) + np.log(q))

    numbers = range(math.ceil(share * (failed + 1)), failed + 1)
    passing = [own for own in numbers if over(own, 0.5) >= -1e-9]
    assert found in (passing[0] if passing else None, passing[0] + 1 if passing else None)
    if found is not None:
        assert found == passing[0] or over(passing[0], 0.5) == pytest.approx(0, abs=1e-8)
        whole = betainc(failed - found + 1, found + 1, 1 - share)  # the integral beyond the share
        assert whole >= 0.5
        assert over(found, float(whole)) >= -1e-8


def test_failures_that_are_rare_are_seen_long_before_the_whole_distribution_would_tell() -> None:
    """0.1 % beside 3 %: after a thousand calls of each, where the bound for distributions allows 18 points."""
    good, bad = Counted(1000, 1, {60: 999}), Counted(1000, 30, {60: 970})
    assert judged(good, bad).why.startswith("errors: 3.0% of its calls fail, 0.1% beside it")
    assert not judged(bad, good).why
    assert not judged(good, Counted(1000, 4, {60: 996})).why


def test_looking_at_every_failure_stops_few_that_fail_alike() -> None:
    rng, stopped = np.random.default_rng(5), 0
    for _ in range(400):
        share = rng.uniform(0.05, 0.5)
        own = np.cumsum(rng.random(500) < share)
        calls = int(100_000 * share)
        stopped += any(
            own[failed - 1] >= (too_many(failed, calls, 100_000 - calls) or failed + 1) for failed in range(1, 501, 7)
        )
    assert stopped <= 32, "of 400 one in twenty at most, and what chance adds to that once in ten thousand times"


def test_what_is_worse_is_stopped_and_says_why() -> None:
    rng = np.random.default_rng(3)
    good = counted(rng.lognormal(5, 0.5, 3000))
    failing = judged(good, counted(rng.lognormal(5, 0.5, 10), 60))
    assert failing.why.startswith("errors: 85.7% of its calls fail, 0.0% beside it")
    slow = judged(good, counted(rng.lognormal(5, 0.5, 600) * 3))
    assert slow.why.startswith("latency:")
    tenth = judged(good, counted(rng.lognormal(5, 0.5, 3000) * 1.1))
    assert not tenth.why, "a tenth slower is no reason to stop"
    faster = judged(good, counted(rng.lognormal(5, 0.5, 3000) / 3))
    assert not faster.why
    losses = Losses(1000, 100.0), Losses(1000, 700.0)
    assert judged(good, good, losses).why.startswith("quality: 0.7 is its loss, 0.1 beside it")
    assert not judged(good, good, losses[::-1]).why
    errors = [dict(enumerate(cells([cell_of(one) for one in rng.exponential(1e6 * k, 2000)]))) for k in (1, 4)]
    regressions = Losses(2000, 0.0, errors[0]), Losses(2000, 0.0, errors[1])
    assert judged(good, good, regressions, binary=False).why.startswith("quality:")
    assert not judged(good, good, (regressions[0], regressions[0]), binary=False).why


def test_nobody_looks_before_there_is_anything_to_see() -> None:
    few = Counted(FIRST_LOOK - 1, FIRST_LOOK - 1)
    verdict = judged(Counted(10_000, 0), few)
    assert (verdict.why, verdict.looks[0].bound) == ("", None)
    assert judged(Counted(10_000, 0, {5: 10_000}), Counted(FIRST_LOOK, FIRST_LOOK)).why.startswith("errors:")
    assert not judged(Counted(), Counted()).why


def test_an_outage_of_both_while_the_canary_has_more_callers_is_none_of_its_fault() -> None:
    """Trap: over all steps together the canary, which had few callers before it, fails more often than the other."""
    stable, canary = Counted(9_500, 0, {60: 9_500}), Counted(500, 0, {60: 500})
    outage = Counted(1_000, 50, {75: 950})  # half the callers each now, and slow besides
    since = msgspec.to_builtins(Before(stable, canary), str_keys=True)
    rollout = rollout_of(step=1, before=since)
    seen = Seen(summed([stable, outage]), summed([canary, outage]))
    assert judged(seen.stable, seen.tried()).why, "the two steps together would stop it"
    assert seen.of_step(rollout) == (outage, outage)
    assert not judged(*seen.of_step(rollout), steps=2).why
    assert following(rollout, 500, "a", seen, judged(*seen.of_step(rollout), steps=2), live=True)
    assert following(rollout, 500, "a", Seen(stable, canary), Verdict(()), live=True) == {}, "no call of this step yet"


# -- what comes next ----------------------------------------------------------------------------------------------


def rollout_of(**changes: Any) -> Rollout:
    found = {"id": "r", "model": "late", "stable": 1, "stable_id": "a", "canary": 2, "canary_id": "b", "steps": STEPS}
    return Rollout(**found | {"since": 100, "started": 90} | changes)  # type: ignore[arg-type]


def test_the_next_move() -> None:
    enough, few = Seen(Counted(), Counted(FIRST_LOOK)), Seen(Counted(), Counted(FIRST_LOOK - 1))
    fine, bad = SimpleNamespace(why="", looks=()), SimpleNamespace(why="errors", looks=())

    def after(
        rollout: Rollout, now: int, seen: Seen = enough, verdict: Any = fine, champion: str = "a", **more: Any
    ) -> Any:
        return dict(following(rollout, now, champion, seen, verdict, **{"live": True} | more))

    assert after(rollout_of(), 109) == {}
    moved = after(rollout_of(), 110)
    assert (moved["step"], moved["since"], moved["found"]) == (1, 110, {"looks": []})
    assert msgspec.convert(moved["before"], Before, strict=False) == Before(enough.stable, enough.canary)
    assert after(rollout_of(), 500, few) == {}, "it waits for calls"
    assert after(rollout_of(step=1), 110)["state"] == "promoting"
    assert after(rollout_of(since=0), 500) == {"since": 500}, "its step begins when it is served"
    assert after(rollout_of(since=0), 500, live=False) == {}
    assert after(rollout_of(), 105, verdict=bad)["state"] == "stopped"
    assert after(rollout_of(), 105, broken="damaged")["why"] == "it cannot be loaded: damaged"
    assert after(rollout_of(), 105, champion="b")["state"] == "promoted"
    assert after(rollout_of(), 105, champion="c")["state"] == "stopped"
    assert after(rollout_of(steps=(RolloutStep(0.1),)), 10**9) == {}, "until somebody decides"
    shadow = rollout_of(steps=(RolloutStep(0.0, 10, shadow=True), *STEPS))
    assert after(shadow, 200) == {}, "nobody has asked the shadow yet"
    asked = Seen(Counted(), Counted(), Differences(calls=FIRST_LOOK))
    assert after(shadow, 200, asked)["step"] == 1


# -- in the catalog -----------------------------------------------------------------------------------------------


def test_what_a_person_decides(catalog: Catalog) -> None:
    tried = try_version(catalog, "late", 2, (RolloutStep(0.1),), "ada")
    assert current(catalog, "late")[0] == tried
    for version, code in ((2, "MS-4360"), (1, "MS-4361"), (9, "MS-5040")):
        with pytest.raises(RefusedError) as caught:
            try_version(catalog, "late", version, STEPS, "ada")
        assert caught.value.code == code
    with pytest.raises(RefusedError) as caught:
        try_version(catalog, "early", 1, STEPS, "ada")
    assert caught.value.code == "MS-5040"
    another = try_version(catalog, "late", 3, STEPS, "bob")
    assert current(catalog, "late")[0] == another, "the newest one stands, the one before has ended"
    ended = [event.data["told"] for event in catalog.last_events(what="model.rollout.stopped")]
    assert ended == ["version 2 beside version 1: stopped, version 3 came"]
    done = roll_back_model(catalog, "late", "cid")
    assert isinstance(done, Rollout)
    assert (done.state, done.why) == ("stopped", "stopped by cid")
    assert champion_of(catalog, "late")[0].version == 1  # type: ignore[union-attr]
    try_version(catalog, "late", 2, STEPS, "ada")
    promote_whole(catalog, "late", 2, "ada")
    assert current(catalog, "late")[0].over  # type: ignore[union-attr]
    back = roll_back_model(catalog, "late", "cid")
    assert isinstance(back, Entity)
    assert back.version == 1
    assert label_version(catalog, "late", 3, "mine", "ada").version == 3
    for label in ("stable", "canary", "7", ""):
        with pytest.raises(RefusedError) as caught:
            label_version(catalog, "late", 3, label, "ada")
        assert caught.value.code == "MS-4364"


def test_of_many_who_move_at_once_one_wins(catalog: Catalog) -> None:
    rollout = try_version(catalog, "late", 2, STEPS, "ada")
    seen, alias = current(catalog, "late")
    assert seen == rollout
    won: list[int] = []
    start = threading.Barrier(8)

    def moves(n: int) -> None:
        start.wait()
        if change(catalog, rollout, alias, f"{n}", state="stopped", why=f"{n}") is not None:
            won.append(n)

    threads = [threading.Thread(target=moves, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert current(catalog, "late")[0].why == f"{won[0]}"  # type: ignore[union-attr]
    moved = catalog.alias("model", "late", "champion")
    assert moved is not None

    def labels(n: int) -> None:
        start.wait()
        try:
            label_version(catalog, "late", 2 + n % 2, "mine", f"{n}")
        except RefusedError as error:
            assert error.code == "MS-4363"  # noqa: PT017 - another thread was faster

    threads = [threading.Thread(target=labels, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = catalog.alias("model", "late", "mine")
    assert found is not None
    assert found.rev == len(told(catalog, "late", "model.mine")), "every move that took place is on record, once"


def test_evidence_of_processes_that_are_gone_counts(catalog: Catalog) -> None:
    rollout = try_version(catalog, "late", 2, STEPS, "ada")
    for writer, parts in (("a", (3, 1)), ("b", (5, 0)), ("a", (7, 2))):
        state = b'{"calls":%d,"errors":%d,"latency":{"4":%d}}' % (*parts, parts[0] - parts[1])
        catalog.put_blocks([Block(monitor_of(rollout.id), "2", "", 0, writer, state, 1)])
    assert seen_of(catalog, rollout).canary == Counted(12, 2, {4: 10}), "the newest of each writer"
    assert seen_of(catalog, rollout).stable == Counted()


class Died(BaseException):
    """The process is gone."""


class Dying:
    """A catalog whose process dies at its n-th change: before it, or when it is done and nobody knows."""

    def __init__(self, catalog: Catalog, left: int, *, done: bool) -> None:
        self._catalog, self._left, self._done = catalog, left, done

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._catalog, name)
        if name not in ("add_entity", "move_alias", "put_blocks", "add_event"):
            return method

        def call(*args: Any, **more: Any) -> Any:
            self._left -= 1
            if self._left > 0:
                return method(*args, **more)
            if self._done:
                method(*args, **more)
            raise Died

        return call


def driver(catalog: Any, now: Callable[[], int], state: Path) -> Rollouts:
    """A process with version 1 and 2 loaded, which both answer as time goes by."""
    rollout, _ = current(catalog, "late")
    assert rollout is not None
    ledgers = Ledgers(state / "rollouts", "0")
    ledger = ledgers.own(rollout.id)
    seen = {"1": ledger.stable, "2": ledger.canary}

    def busy() -> int:
        for evidence in seen.values():
            for _ in range(FIRST_LOOK):
                evidence.answered(1000)
        return now()

    table: Any = ModelTable()
    table.swap("late", ModelVersions("1", {}, {}, Split(rollout.id, "1", "2", 0.1, None, seen)))
    loading: Any = SimpleNamespace(names=lambda: ["late"])
    services: Any = SimpleNamespace(catalog=catalog, state=state)
    metrics: Any = SimpleNamespace(set=lambda *args, **more: None)
    return Rollouts(services, Plan("app", ()), loading, table, metrics, lambda line: None, busy, ledgers)


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("deaths", range(1, 12))
def test_whenever_it_dies_the_next_process_brings_it_to_its_end(
    catalog: Catalog, tmp_path: Path, deaths: int, done: bool
) -> None:
    try_version(catalog, "late", 2, STEPS, "ada")
    clock = iter(range(1_000, 10**6, 10))
    died = False
    first = driver(Dying(catalog, deaths, done=done), lambda: next(clock), tmp_path)
    try:
        for _ in range(8):
            first.once()
    except Died:
        died = True
    between, _ = current(catalog, "late")
    champion, _ = champion_of(catalog, "late")
    assert between is not None
    assert champion is not None
    assert (between.state, champion.version) in {
        ("running", 1),
        ("promoting", 1),
        ("promoting", 2),
        ("promoted", 2),
    }, "one whole state, whenever that was"
    assert died or between.state == "promoted"
    second = driver(catalog, lambda: next(clock), tmp_path)
    for _ in range(8):
        second.once()
    ended, _ = current(catalog, "late")
    assert ended is not None
    assert (ended.state, champion_of(catalog, "late")[0].version) == ("promoted", 2)  # type: ignore[union-attr]
    moves = told(catalog, "late", "model.champion")
    assert [event.data["version"] for event in moves] == [1, 2], "the champion has moved once"
    assert isinstance(roll_back_model(catalog, "late", "cid"), Entity)
    assert champion_of(catalog, "late")[0].version == 1  # type: ignore[union-attr]


def test_two_processes_drive_one_rollout(catalog: Catalog, tmp_path: Path) -> None:
    try_version(catalog, "late", 2, STEPS, "ada")
    clock, lock = iter(range(1_000, 10**7, 10)), threading.Lock()

    def now() -> int:
        with lock:
            return next(clock)

    drivers = [driver(catalog, now, tmp_path) for _ in range(4)]
    faults: list[BaseException] = []

    def drive(one: Rollouts) -> None:
        try:
            for _ in range(10):
                one.once()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=drive, args=(one,)) for one in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert current(catalog, "late")[0].state == "promoted"  # type: ignore[union-attr]
    assert [event.data["version"] for event in told(catalog, "late", "model.champion")] == [1, 2]
    states = [event.what.rpartition(".")[2] for event in catalog.events(what="model.rollout", limit=50)]
    assert states == ["running", "running", "running", "promoting", "promoted"], "no step twice"


def test_a_stop_comes_too_late_while_the_champion_moves(catalog: Catalog) -> None:
    rollout = begin(
        catalog,
        catalog.entity("model", "late", 1),
        catalog.entity("model", "late", 2),
        STEPS,
        "ada",
        "why",  # type: ignore[arg-type]
    )
    _, alias = current(catalog, "late")
    assert change(catalog, rollout, alias, "rollout", state="promoting") is not None
    assert stop(catalog, "late", "ada", "stop") is None
    assert current(catalog, "late")[0].state == "promoting"  # type: ignore[union-attr]
    assert math.isfinite(current(catalog, "late")[1].rev)  # type: ignore[union-attr]


def test_labels_received_at_one_moment_are_taken_page_by_page(catalog: Catalog, monkeypatch: Any) -> None:
    monkeypatch.setattr(quality, "_PAGE", 3)  # a file of labels may have more than a page
    rollout = Rollout("r", "late", 1, "a" * 32, 2, "b" * 32, STEPS, started=1_000_000)
    followed = quality.Quality(rollout, catalog, [], True, "late")
    ids = [f"{2_000:012x}{number:020x}" for number in range(10)]
    followed._take([{"prediction_id": one, "version": 1 + n % 2, "score": 0.0} for n, one in enumerate(ids)])
    assert catalog.add_labels([Label(one, "late", 1.0, 5, 2_000_000) for one in ids]) == 10
    assert followed.once() == (Losses(5, 5.0, {}), Losses(5, 5.0, {}))
    assert followed.once() == (Losses(5, 5.0, {}), Losses(5, 5.0, {}))  # each is counted once


# -- scores, without labels -------------------------------------------------------------------------------------------


def pages(stable: np.ndarray, canary: np.ndarray) -> tuple[dict[float, float], dict[float, float]]:
    """Scores as two Prometheus pages count them."""
    edges = [*SCORE_BUCKETS, math.inf]
    return tuple({edge: float((side <= edge).sum()) for edge in edges} for side in (stable, canary))  # type: ignore[return-value]


def test_scores_that_are_alike_never_stop_a_canary_and_others_soon_do() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        scores = rng.beta(2, 5, (2, 20_000))
        assert not any(moved("m", *pages(*scores[:, :n]), 0.0).stops for n in (60, 200, 1000, 5000, 20_000))
    stable, canary = rng.beta(2, 5, 4000), rng.beta(2, 5, 4000) + 0.4
    apart = moved("m", *pages(stable, canary), 0.3)
    assert apart.stops
    assert apart.measure == "scores of m"
    assert moved("m", *pages(stable[:40], canary[:40]), 0.3).bound is None  # before the first look
    assert moved("m", {}, {}, 0.3).bound is None


@given(st.lists(st.floats(-3e6, 3e6), min_size=1, max_size=60), st.lists(st.floats(-3e6, 3e6), min_size=1, max_size=60))
def test_pages_never_make_scores_further_apart_than_they_are(one: list[float], other: list[float]) -> None:
    a, b = np.array(one), np.array(other)
    at = np.concatenate([a, b])
    real = np.abs((a[:, None] <= at).mean(0) - (b[:, None] <= at).mean(0)).max()
    assert moved("m", *pages(a, b), 0.0).canary <= real + 1e-12
