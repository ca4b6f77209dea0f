"""The rows of a busy entity in chunks, against a loop over rows: ties at edges, late rows, repeats, past moments."""

import random

import numpy as np
import pytest

from mainspring.adapters.lmdb.online_store import LmdbStore
from mainspring.declare.aggregate import Function, avg, count, distinct, first, highest, last_n, lowest, quantile, total
from mainspring.features.online import chunks
from mainspring.features.online.keys import key_packer
from mainspring.features.online.plan import compile_plan
from mainspring.features.online.windows import layout_of
from mainspring.features.online.write import upsert
from mainspring.features.view import pick
from mainspring.features.windows.sketch import RANKS, REGISTERS, estimate, number_hashes, registers
from thoroughly import rounds
from unit.features.offline import oracle
from unit.features.offline.oracle import Row
from unit.features.offline.tables import a_view, log_table

STEP = 10_000_000
EXACT = 6
FEATURES = {}
for window in ("40s", "5m", "1h"):
    FEATURES |= {
        f"rows_{window}": count(window),
        f"texts_{window}": count("s", window),
        f"sum_{window}": total("n", window),
        f"mean_{window}": avg("x", window),
        f"low_{window}": lowest("s", window),
        f"high_{window}": highest("x", window),
        f"first_{window}": first("n", window),
        f"last_{window}": last_n("n", 7, window),
        f"kinds_{window}": distinct("n", window),
        f"middle_{window}": quantile("x", 0.5, window),
    }


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 4)
    monkeypatch.setattr(chunks, "TAIL", 8)
    monkeypatch.setattr(chunks, "GROUP", 3)
    monkeypatch.setattr("mainspring.features.online.partials.EXACT", EXACT)
    monkeypatch.setattr("mainspring.features.online.answers.EXACT", EXACT)


def expected(inside, what):
    if what.function is not Function.DISTINCT:
        return oracle.aggregate(inside, what)
    values = {row.values["n"] for row in inside} - {None}
    if len(values) <= EXACT:
        return len(values) or None
    register, rank = registers(number_hashes(np.array(sorted(values))))
    greatest = np.zeros(REGISTERS, np.int64)
    np.maximum.at(greatest, register, rank)
    return int(estimate(np.bincount(greatest, minlength=RANKS)[None])[0])


@pytest.mark.parametrize("seed", range(rounds(1, 2)))
@pytest.mark.parametrize("versioned", [False, True])
def test_chunks_answer_like_a_loop(tmp_path, small, seed, versioned):
    chance = random.Random(seed)
    store = LmdbStore(tmp_path / "store", 1 << 27)
    view = a_view(FEATURES, versioned=versioned)
    plan, layout = compile_plan(store, [pick(view)]), layout_of(view)
    sketched = [name for name in FEATURES if name.startswith(("kinds", "middle"))]
    fewer = compile_plan(store, [pick(view, *sketched)])
    key = key_packer(view.id, view.keys)({"k": "a"})
    rows, now = [], 400 * STEP
    kinds, grouped = set(), 0
    for _ in range(30):
        batch = []
        for _ in range(chance.randint(1, 9)):
            event = now - STEP * chance.choice([0, 0, 1, 2, 5, 20, 100, 300])
            batch.append(
                Row(
                    "a",
                    event,
                    event + STEP * chance.choice([0, 0, 1, 3]),
                    len(rows) + len(batch),
                    {
                        "x": chance.choice([None, float(chance.randint(-90, 90))]),
                        "n": chance.choice([None, chance.randint(-9, 30)]),
                        "s": chance.choice([None, "p", "q", "é"]),
                    },
                    id=f"i{chance.randint(0, 150)}" if versioned else None,
                )
            )
        if versioned:  # arrival is in order, as in a log
            batch = [Row(**(vars(row) | {"ingest": now})) for row in batch]
        again = chance.sample(rows, min(3, len(rows)))
        rows += batch
        upsert(view, store, log_table(view, [*batch, *again]), now)
        directory, *_ = chunks.read_busy(store.get_many([key])[0], layout)
        if directory is not None:
            kinds |= {len(directory.chunks) > 5, bool(directory.groups.any())}
            grouped += len(np.unique(directory.groups[directory.groups > 0]))
            stored = sum(k[4:5] == b"T" for k, _ in store.scan(b""))
            assert stored == len(directory.chunks)
        events = sorted({row.event for row in rows})
        edges = [] if directory is None else [*directory.firsts.tolist(), *directory.lasts[0].tolist()]
        asked = {now, *chance.sample(events, min(3, len(events)))}
        asked |= {edge + span for edge in chance.sample(edges, min(6, len(edges))) for span in (0, 4 * STEP, 30 * STEP)}
        for t in sorted(t for t in asked if now - 7_000_000_000 < t <= now):
            values, _ = plan.read_one({"k": "a"}, t)
            found = dict(zip(FEATURES, values, strict=True))
            assert fewer.read_one({"k": "a"}, t)[0] == [found[name] for name in sketched]  # it reads fewer chunks
            for (name, what), value in zip(FEATURES.items(), values, strict=True):
                inside = oracle.in_window(rows, "a", t, what.window_us, as_known=False, versioned=versioned)
                wanted = expected(inside, what)
                assert oracle.same(value, wanted), (name, value, wanted, t)
        now += STEP * chance.choice([0, 1, 1, 4, 15])
    assert True in kinds
    assert grouped > 30
    store.close()
