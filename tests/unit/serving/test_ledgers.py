"""What several workers have seen of a rollout, through their deaths, against one list of all calls."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.adapters.sqlite.catalog import SqliteCatalog
from mainspring.catalog.rollouts import Rollout
from mainspring.declare.rollout import RolloutStep
from mainspring.ports.catalog import Block
from mainspring.server.rollouts.drive import monitor_of, seen_of
from mainspring.server.rollouts.judge import judged
from mainspring.server.rollouts.ledger import Ledger, Ledgers
from mainspring.serving.rollout.evidence import Counted, cell_of, summed
from mainspring.serving.rollout.shadow import Differences, Shadow, ShadowCall

WORKERS = 3
CALLS = st.lists(
    st.tuples(
        st.integers(0, WORKERS - 1),
        st.sampled_from(["stable", "canary"]),
        st.one_of(st.none(), st.integers(1, 10**10)),  # None is a failed call
        st.booleans(),  # whether the worker dies after it
    ),
    max_size=60,
)


@given(CALLS)
def test_the_sum_over_workers_and_their_lives_is_that_of_one_process(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[int, str, int | None, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("ledgers")
    named = [Ledgers(folder, str(number)) for number in range(WORKERS)]
    lives = [each.own("r1") for each in named]
    writers = {life.writer for life in lives}
    for worker, version, ns, dies in calls:
        evidence = getattr(lives[worker], version)
        evidence.begun()
        if ns is None:
            evidence.failed()
        else:
            evidence.answered(ns)
        evidence.ended()
        if dies:
            lives[worker] = named[worker].own("r1")
    kept = list(named[0].all("r1"))
    assert {one.writer for one in kept} == writers, "a replacement goes on with what was counted"
    for version in ("stable", "canary"):
        whole = [ns for _, asked, ns, _ in calls if asked == version]
        cells = Counter(cell_of(ns / 1e3) for ns in whole if ns is not None)
        assert summed(getattr(one, version) for one in kept) == Counted(len(whole), whole.count(None), dict(cells))


LIVES = """
import sys, time
from pathlib import Path
from mainspring.server.rollouts.ledger import Ledgers
from mainspring.serving.rollout.shadow import Shadow, ShadowCall
ledger = Ledgers(Path(sys.argv[1]), "1").own("r1")
for _ in range(1000):
    ledger.canary.begun(); ledger.canary.answered(2_000_000); ledger.canary.ended()
for _ in range(3):
    ledger.canary.begun()
ledger.stable.begun()
def never():
    print("asked", flush=True)
    time.sleep(600)
shadow = Shadow(binary=True, tally=ledger.shadow)
shadow.offer(ShadowCall(lambda: [0.9], [0.4]))
shadow.offer(ShadowCall(never, [0.4]))
time.sleep(600)
"""


def test_calls_that_die_with_their_process_have_failed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", LIVES, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asked\n"
        process.kill()
    ledgers = Ledgers(tmp_path, "1")
    cell = cell_of(2000.0)
    (before,) = ledgers.all("r1")
    assert before.canary == Counted(1000, 0, {cell: 1000}), "while it is gone nothing is said of them"
    again = ledgers.own("r1")
    assert again.kept().canary == Counted(1003, 3, {cell: 1000})
    assert again.kept().stable == Counted(1, 1)
    assert again.kept().differences == Differences(2, 1, 1, 0, 1, 0.5, 0.5)
    assert ledgers.own("r1").kept() == again.kept(), "once"
    ledgers.forget("r1")
    assert list(ledgers.all("r1")) == []


def test_a_shadow_goes_on_with_what_its_last_life_has_found(tmp_path: Path) -> None:
    ledgers = Ledgers(tmp_path, "0")
    for life in (1, 2):
        shadow = Shadow(binary=True, tally=ledgers.own("r1").shadow)
        shadow.offer(ShadowCall(lambda: [0.75], [0.25]))
        while shadow.differences().calls < life:
            pass
        shadow.stop()
    assert next(ledgers.all("r1")).differences == Differences(2, 2, 0, 0, 2, 1.0, 0.5)


def test_a_ledger_without_room_counts_as_long_as_it_lives(tmp_path: Path) -> None:
    (tmp_path / "r1").write_text("no folder")
    ledger = Ledgers(tmp_path, "0").own("r1")
    ledger.stable.answered(1000)
    assert ledger.kept().stable.calls == 1
    assert len({Ledger().writer for _ in range(8)}) == 8


def test_a_canary_that_fails_in_one_worker_of_three_is_seen(tmp_path: Path) -> None:
    """Worker 0 judged by its own calls would never have stopped it."""
    catalog = SqliteCatalog(tmp_path / "catalog.db")
    rollout = Rollout("r1", "late", 1, "a", 2, "b", (RolloutStep(0.5, None),), "ada")
    for number in range(WORKERS):
        ledger = Ledgers(tmp_path / "rollouts", str(number)).own("r1")
        for _ in range(1000):
            ledger.stable.answered(1_000_000)
            if number == 2:
                ledger.canary.failed()
            else:
                ledger.canary.answered(1_000_000)
    kept = list(Ledgers(tmp_path / "rollouts", "0").all("r1"))
    assert judged(kept[0].stable, kept[0].canary).why == ""
    blocks: list[Any] = [
        Block(monitor_of("r1"), feature, "", 0, one.writer, state, 1)
        for one in kept
        for feature, state in one.parts("1", "2").items()
    ]
    for _ in range(2):  # what is written again adds nothing
        catalog.put_blocks(blocks)
    seen = seen_of(catalog, rollout)
    assert (seen.stable.calls, seen.canary.calls, seen.canary.errors) == (3000, 3000, 1000)
    assert judged(seen.stable, seen.tried()).why.startswith("errors: 33.3% of its calls fail")
    catalog.close()
