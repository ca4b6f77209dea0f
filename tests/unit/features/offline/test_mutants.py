"""Broken rules are found by the examples that the oracle is asked about; and those examples are no tame ones."""

import dataclasses
import random

import numpy as np
import pyarrow as pa
import pytest

from mainspring.declare.aggregate import avg, count, distinct, first, last, last_n, lowest, quantile, total
from mainspring.declare.frame import Frame
from mainspring.features.logs.log import TableVersion
from mainspring.features.offline import history, joined
from mainspring.features.offline.asof import gather_sql, hits_sql
from mainspring.features.offline.history import history_of
from mainspring.features.windows import load, pieces
from mainspring.features.windows.question import Question
from unit.features.offline import oracle
from unit.features.offline.oracle import Row
from unit.features.offline.tables import ACUTE, GRID, Folder, a_view, log_table, spine_table

TTL = 3 * GRID
FEATURES = {
    "px": last("x"),
    "rows": count("30m"),
    "sum": total("n", "1h"),
    "mean": avg("x", "20m"),
    "low": lowest("n", "1h"),
    "oldest": first("n", "1h"),
    "newest": last_n("x", 2, "1h"),
    "kinds": distinct("n", "2h"),
    "middle": quantile("n", 0.5, "1h"),
}


def example(seed):
    """Random rows and questions on the ten-minute grid: ties, late rows, corrections, tombstones, ends, two é."""
    rng = random.Random(seed)
    keys = ["a", "b", *ACUTE]
    count_of_rows = rng.randint(25, 50)
    seqs = rng.sample(range(1000), count_of_rows)
    rows = []
    for seq in seqs:
        event = rng.randint(0, 14) * GRID
        late = rng.choice([0, 0, 0, GRID, 4 * GRID, -GRID])
        ends = rng.choice([None, None, None, None, event + rng.randint(0, 4) * GRID])
        rows.append(
            Row(
                rng.choice(keys),
                event,
                event + late,
                seq,
                {"x": rng.choice([None, float(rng.randint(-5, 5))]), "n": rng.choice([None, rng.randint(-9, 9)])},
                deleted=rng.random() < 0.07,
                valid_to=ends,
                id=rng.choice(["i", "j", None]),
            )
        )
    for gone in rng.sample(rows, 6):
        later = gone.ingest + rng.choice([0, GRID, 3 * GRID, 8 * GRID])
        rows.append(dataclasses.replace(gone, ingest=later, seq=1000 + len(rows), deleted=True, retracts=gone.seq))
    questions = [(rng.choice([*keys, *keys, *keys, "zz", None]), rng.randint(-1, 34) * GRID // 2) for _ in range(30)]
    return rows, questions + questions[:3]


EXAMPLES = [example(seed) for seed in range(10)]


def answers(folder, rows, questions, as_known=True, versioned=True):
    view = a_view(FEATURES, ttl=TTL, has_valid_to=True, versioned=versioned)
    folder.write(log_table(view, rows))
    table = history_of(folder, [view], Frame(spine_table(questions)), "at", as_known, "short", True, {}).arrow()
    return table.to_pylist()


def expected(rows, key, t, as_known=True, versioned=True):
    found = oracle.newest(rows, key, t, as_known=as_known, ttl=TTL)
    answer = {"v__status": found.status, "px": found.values.get("x") if found.status == oracle.PRESENT else None}
    for name, what in FEATURES.items():
        if what.window_us is not None:
            inside = oracle.in_window(rows, key, t, what.window_us, as_known=as_known, versioned=versioned)
            answer[name] = oracle.aggregate(inside, what)
    return answer


def agrees(folder, examples=EXAMPLES, **rules):
    """Whether all answers are those of the loop; stops at the first that is not."""
    for rows, questions in examples:
        try:
            given = answers(folder, rows, questions, **rules)
        except (pa.ArrowInvalid, IndexError):  # rows are missing, or windows contradict each other
            return False
        for answer, (key, t) in zip(given, questions, strict=True):
            wanted = expected(rows, key, t, **rules)
            if not all(oracle.same(answer[name], value) for name, value in wanted.items()):
                return False
    return True


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.mark.parametrize("as_known", [True, False])
@pytest.mark.parametrize("versioned", [True, False])
def test_the_examples_are_answered_right(folder, as_known, versioned):
    assert agrees(folder, as_known=as_known, versioned=versioned)


@pytest.mark.parametrize("piece", [1, 7, 40])
def test_windows_in_pieces_are_answered_right(folder, monkeypatch, piece):
    monkeypatch.setattr(pieces, "PIECE", piece)
    assert agrees(folder)


def test_the_examples_are_no_tame_ones():
    """Tame data pass broken kernels: matches, cuts, ties and late rows must all be there."""
    asked = [(rows, key, t) for rows, questions in EXAMPLES for key, t in questions]
    found = [oracle.newest(rows, key, t, ttl=TTL) for rows, key, t in asked]
    assert sum(answer.status == oracle.PRESENT for answer in found) > 0.4 * len(asked)
    assert sum(answer.status == oracle.EXPIRED for answer in found) > 0.1 * len(asked)
    for rows, _ in EXAMPLES:
        assert any(row.ingest > row.event for row in rows)
    tied = [len({(row.key, row.event) for row in rows}) < len(rows) for rows, _ in EXAMPLES]
    assert sum(tied) > len(EXAMPLES) / 2
    at_the_moment = [any(row.key == key and row.event == t for row in rows) for rows, key, t in asked]
    assert sum(at_the_moment) > 0.05 * len(asked)
    at_the_edge = [any(row.key == key and row.event == t - TTL for row in rows) for rows, key, t in asked]
    assert sum(at_the_edge) > 0.05 * len(asked)
    late = [any(row.key == key and row.event <= t < row.ingest for row in rows) for rows, key, t in asked]
    assert sum(late) > 0.05 * len(asked)


SQL_MUTANTS = {
    "after instead of at": ("s.t >= b.vis", "s.t > b.vis"),
    "ttl is open": ("event < t -", "event <= t -"),
    "no ttl": (f"when event < t - {TTL} then 1", ""),
    "an end is open": ("t >= until", "t > until"),
    "ends are ignored": ("when t >= until then 1", ""),
    "no tie rule": ("and next_vis is distinct from vis", ""),
    "ties by arrival first": ("order by vis, event, ingest, seq", "order by vis, seq, event, ingest"),
    "ties without ingest": ("order by vis, event, ingest, seq", "order by vis, event, seq"),
    "ties by event alone": ("order by vis, event, ingest, seq", "order by vis, event"),
    "a late row wins always": ("where event = newest and", "where"),
    "ingest is ignored": ("greatest(event, ingest) as vis", "event as vis"),
    "known, not happened": ("greatest(event, ingest) as vis", "ingest as vis"),
    "tombstones answer": ("when dead then 0", "when event is null then 0"),
    "a local zone": ("epoch_us(_event_time) as event", "epoch_us(_event_time) - 3600000000 as event"),
    "keys by collation": ("n.k0 = e.k0", "nfc_normalize(n.k0) = nfc_normalize(e.k0)"),
}


@pytest.mark.parametrize("name", SQL_MUTANTS)
def test_a_broken_statement_is_found(folder, monkeypatch, name):
    right, wrong = SQL_MUTANTS[name]

    def broken(*given):
        sql = hits_sql(*given)
        assert right in sql
        return sql.replace(right, wrong)

    monkeypatch.setattr(joined, "hits_sql", broken)
    assert not agrees(folder)


def test_rows_that_are_gathered_for_the_wrong_questions_are_found(folder, monkeypatch):
    def broken(columns, log):
        return gather_sql(columns, log).replace("h.rid", "h.seq % 7 as rid")

    monkeypatch.setattr(joined, "gather_sql", broken)
    assert not agrees(folder)


def test_an_order_that_is_not_the_questions_is_found(folder, monkeypatch):
    monkeypatch.setattr(
        joined, "places_of", lambda rid, rows: pa.array(range(rows), pa.int64(), mask=np.arange(rows) >= len(rid))
    )
    assert not agrees(folder)


ROWS_MUTANTS = {
    "ingest is ignored": ("greatest(event, ingest) as visible", "event as visible"),
    "versions by event": ("order by ingest, seq)", "order by event, seq)"),
    "versions without seq": ("order by ingest, seq)", "order by ingest, seq desc)"),
    "versions over all entities": ("over (partition by entity, version", "over (partition by version"),
    "all without an id are one": ("case when _id is null then _seq end as own", "0 as own"),
    "every version counts": ("coalesce(lead(ingest)", "coalesce(9223372036854775807, lead(ingest)"),
    "tombstones count": ("where not dead and", "where"),
    "what is replaced stays replaced": ("and since < touched.ended", ""),
    "what takes away is a version": (" where _retracts is null),", "),"),
    "an event without a version has its last": ("from bounds left join", "from bounds join"),
    "of versions that stand the first": ("order by touched.ingest desc", "order by touched.ingest"),
}


@pytest.mark.parametrize("name", ROWS_MUTANTS)
def test_a_broken_selection_of_rows_is_found(folder, monkeypatch, name):
    right, wrong = ROWS_MUTANTS[name]
    original = load.rows_sql

    def broken(*args, **options):
        sql = original(*args, **options)
        assert right in sql
        return sql.replace(right, wrong)

    monkeypatch.setattr(load, "rows_sql", broken)
    assert not agrees(folder)


def closed_old_end(self, window_us):
    lo = self._log.find(self.moments.entity, self.moments.t - window_us, "left")
    return lo, self._stop


def open_new_end(self, window_us):
    lo = self._log.find(self.moments.entity, self.moments.t - window_us, "right")
    return lo, self._log.find(self.moments.entity, self.moments.t, "left")


def nothing(self, *args):
    return iter(())


def known_too_late(self, which, since, until, window_us):
    return _BETWEEN(self, which, since, np.minimum(until, 10**15) + 1, window_us)


def late_for_ever(self, which, since, until, window_us):
    return _BETWEEN(self, which, since, until, window_us + 10 * GRID)


_BETWEEN = Question._between
QUESTION_MUTANTS = {
    "a closed old end": ("range", closed_old_end),
    "an open new end": ("range", open_new_end),
    "rows in flight count": ("_in_flight", nothing),
    "replaced versions never counted": ("_counted", nothing),
    "known a moment too late": ("_between", known_too_late),
    "corrections outlive the window": ("_between", late_for_ever),
}


@pytest.mark.parametrize("kernel", ["ranges", "prefix"])
@pytest.mark.parametrize("name", QUESTION_MUTANTS)
def test_a_broken_window_is_found(folder, monkeypatch, name, kernel):
    monkeypatch.setattr("mainspring.features.windows.question._WORTH", 1e9 if kernel == "ranges" else -1)
    assert agrees(folder, EXAMPLES[:2])
    method, broken = QUESTION_MUTANTS[name]
    monkeypatch.setattr(Question, method, broken)
    assert not agrees(folder, EXAMPLES[:8])


# -- metamorphic: changes that change no answer -----------------------------------------------------------------------

ROWS, QUESTIONS = EXAMPLES[3]


def plain(table):
    return [{name: value for name, value in row.items() if name != "at"} for row in table]


def test_neither_order_nor_files_matter(folder):
    base = answers(folder, ROWS, QUESTIONS)
    shuffled = ROWS[:]
    random.Random(1).shuffle(shuffled)
    assert answers(folder, shuffled, QUESTIONS) == base
    view = a_view(FEATURES, ttl=TTL, has_valid_to=True, versioned=True)
    folder.write(*(log_table(view, ROWS[index::4]) for index in range(4)))
    split = history_of(folder, [view], Frame(spine_table(QUESTIONS)), "at", True, "short", True, {})
    assert split.arrow().to_pylist() == base


def test_the_order_of_questions_does_not_matter(folder):
    base = answers(folder, ROWS, QUESTIONS)
    turned = answers(folder, ROWS, QUESTIONS[::-1])[::-1]
    assert [row | {"note": 0} for row in turned] == [row | {"note": 0} for row in base]


def test_neither_the_future_nor_others_matter(folder):
    base = answers(folder, ROWS, QUESTIONS)
    latest = max(t for _, t in QUESTIONS)
    future = [Row(row.key, latest + 1 + row.event, latest + 1 + row.ingest, 5000 + row.seq, row.values) for row in ROWS]
    known_later = [Row(row.key, row.event, latest + 1, 7000 + row.seq, row.values) for row in ROWS]
    others = [Row("other " + row.key, row.event, row.ingest, 9000 + row.seq, row.values) for row in ROWS]
    assert answers(folder, [*ROWS, *future, *known_later, *others], QUESTIONS) == base


def test_a_day_later_is_the_same_day(folder):
    day = 86_400_000_000
    base = answers(folder, ROWS, QUESTIONS)
    moved = [
        dataclasses.replace(
            row,
            event=row.event + day,
            ingest=row.ingest + day,
            valid_to=None if row.valid_to is None else row.valid_to + day,
        )
        for row in ROWS
    ]
    later = answers(folder, moved, [(key, t + day) for key, t in QUESTIONS])
    times = {"at", "v__event_time"}
    assert [{k: v for k, v in row.items() if k not in times} for row in later] == [
        {k: v for k, v in row.items() if k not in times} for row in base
    ]


def test_the_log_at_t_is_the_log_cut_at_ingest_t(folder):
    base = answers(folder, ROWS, QUESTIONS)
    for place, (key, t) in enumerate(QUESTIONS[:10]):
        cut = [row for row in ROWS if row.ingest <= t]
        (again,) = answers(folder, cut, [(key, t)])
        assert again | {"note": 0} == base[place] | {"note": 0}


def test_what_is_asked_beside_does_not_matter(folder):
    base = answers(folder, ROWS, QUESTIONS)
    for place, question in enumerate(QUESTIONS[:10]):
        (alone,) = answers(folder, ROWS, [question])
        assert alone | {"note": 0} == base[place] | {"note": 0}


def test_a_tidy_log_is_answered_without_the_search(folder, monkeypatch):
    for rows, questions in EXAMPLES[:4]:
        plain = [row for row in rows if row.ingest <= row.event and row.retracts is None]
        alone = {(row.key, row.event): row for row in plain}
        tidied = list(alone.values())
        base = answers(folder, tidied, questions)
        monkeypatch.setattr(history, "_note", lambda *_: TableVersion("", 0, tidy=True))
        assert answers(folder, tidied, questions) == base
        monkeypatch.undo()


def test_an_empty_log_and_an_empty_spine(folder):
    assert [row["v__status"] for row in answers(folder, [], QUESTIONS[:2])] == ["MISSING", "MISSING"]
    assert [row["rows"] for row in answers(folder, [], QUESTIONS[:2])] == [0, 0]
    assert answers(folder, ROWS, []) == []
    empty = history_of(folder, [a_view(FEATURES)], Frame(spine_table([])), "at", True, "short", True, {}).arrow()
    assert empty.schema.field("px").type == pa.float64()
    assert empty.schema.field("rows").type == pa.int64()
