"""Who asks more than a share is cut in time, and every answer stays what it is."""

import dataclasses
import random

import pytest

from mainspring.declare.aggregate import avg, count, distinct, first, last, last_n, lowest, quantile, total
from mainspring.declare.frame import Frame
from mainspring.features.offline import asof
from mainspring.features.offline.history import history_of
from mainspring.features.windows import load, pieces
from thoroughly import rounds
from unit.features.offline import oracle
from unit.features.offline.tables import GRID, Folder, a_view, log_table, spine_table
from unit.features.offline.test_mutants import TTL, example

FEATURES = {
    "px": last("x"),
    "rows": count("20m"),
    "sum": total("n", "20m"),
    "mean": avg("x", "10m"),
    "low": lowest("n", "20m"),
    "oldest": first("n", "20m"),
    "newest": last_n("x", 2, "20m"),
    "kinds": distinct("n", "20m"),
    "middle": quantile("n", 0.5, "20m"),
}


def hot(seed):
    """An example of which one entity has most rows and asks most; others come before and behind it."""
    rows, questions = example(seed)
    rng = random.Random(seed)
    moved = {row.seq for row in rows if row.key == "a" and row.retracts is None and rng.random() < 0.7}
    rows = [dataclasses.replace(row, key="b") if {row.seq, row.retracts} & moved else row for row in rows]
    asked = [("b", rng.randint(-2, 34) * GRID // 2) for _ in range(60)]
    return rows, [*questions, *asked, *asked[:5]]


EXAMPLES = [hot(seed) for seed in range(rounds(2, 4))]


class Elsewhere:
    """Other machines, which are this one."""

    def __init__(self):
        self.parts = []

    def map(self, function, given):
        for part in given:
            self.parts.append(part)
            yield function(part)

    def close(self):
        """Nothing is held."""


def answered(folder, rows, questions, compute=None, as_known=True, versioned=True):
    view = a_view(FEATURES, ttl=TTL, has_valid_to=True, versioned=versioned)
    folder.write(log_table(view, rows))
    spine = Frame(spine_table(questions))
    return history_of(folder, [view], spine, "at", as_known, "short", True, {}, compute).arrow()


def right(table, rows, questions, as_known=True, versioned=True):
    for answer, (key, t) in zip(table.to_pylist(), questions, strict=True):
        newest = oracle.newest(rows, key, t, as_known=as_known, ttl=TTL)
        px = newest.values.get("x") if newest.status == oracle.PRESENT else None
        wanted = {"v__status": newest.status, "px": px}
        for name, what in FEATURES.items():
            if what.window_us is not None:
                inside = oracle.in_window(rows, key, t, what.window_us, as_known=as_known, versioned=versioned)
                wanted[name] = oracle.aggregate(inside, what)
        if not all(oracle.same(answer[name], value) for name, value in wanted.items()):
            return False
    return True


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 12)
    return Folder(tmp_path)


@pytest.mark.parametrize(("as_known", "versioned"), [(True, True), (True, False), (False, True)])
def test_stretches_of_a_hot_entity_are_answered_right_here_and_elsewhere(folder, as_known, versioned):
    cut = 0
    for rows, questions in EXAMPLES:
        here = answered(folder, rows, questions, as_known=as_known, versioned=versioned)
        assert right(here, rows, questions, as_known, versioned)
        compute = Elsewhere()
        there = answered(folder, rows, questions, compute, as_known, versioned)
        assert there.equals(here), "bytes differ by where they are made"
        assert sum(part.asked.rows for part in compute.parts) == len(questions)
        cut += sum(part.asked.stretch for part in compute.parts)
    assert cut > 2 * len(EXAMPLES), "no entity was cut"


def broken_reach(piece, longest):
    return load.Reach(piece.first, piece.end, piece.span and piece.span[0], piece.span and piece.span[1])


def early(piece, longest):
    return load.Reach(piece.first, piece.end, piece.span and piece.span[0] - longest, piece.span and piece.span[0])


@pytest.mark.parametrize("broken", [broken_reach, early])
def test_a_stretch_without_the_rows_before_it_or_its_last_is_found(folder, monkeypatch, broken):
    monkeypatch.setattr(pieces, "_reach", broken)
    assert not all(right(answered(folder, *example), *example) for example in EXAMPLES)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("least is null or event >= least", "event >= least"),
        ("max(event) as least", "max(event) + 1 as least"),
        ("where vis <= ", "where vis < "),
        ("(least is null or event >= least)", "vis >= least + 1200000000"),
    ],
    ids=["none before it", "its last row is left out", "the last moment is open", "nothing is carried"],
)
def test_a_stretch_that_carries_the_wrong_row_is_found(folder, monkeypatch, here, there):
    def broken(*given):
        sql = asof.hits_sql(*given)
        assert given[2] is None or here in sql
        return sql.replace(here, there)

    monkeypatch.setattr("mainspring.features.offline.joined.hits_sql", broken)
    assert not all(right(answered(folder, *example, Elsewhere()), *example) for example in EXAMPLES)


def test_what_a_stretch_reads_does_not_grow_with_the_entity(folder, monkeypatch):
    sizes, held = {}, 0
    original = load._events

    def counted(found, *rest):
        sizes.setdefault(held, []).append(len(found))
        return original(found, *rest)

    monkeypatch.setattr(load, "_events", counted)
    monkeypatch.setattr(pieces, "PIECE", 2_000)
    for held in (4_000, 16_000):
        rows = [oracle.Row("b", n * GRID, n * GRID, n, {"x": 1.0, "n": n % 7}) for n in range(held)]
        answered(folder, rows, [("b", n * GRID) for n in range(0, held, 2)])
    assert max(sizes[16_000]) <= 1.1 * max(sizes[4_000])


def test_questions_of_one_moment_are_not_cut(folder):
    moments = pieces.Moments(*(load.np.zeros(1000, load.np.int64) for _ in range(3)))
    (one,) = pieces.pieces_of(moments, 0, 1)
    assert one.span is None
