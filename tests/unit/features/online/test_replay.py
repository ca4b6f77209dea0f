"""Online answers computed again offline: late, corrected and future rows are no mismatch, a wrong row is one."""

import random
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.adapters.sqlite.catalog import open_catalog
from mainspring.adapters.sqlite.settings import SqliteSettings
from mainspring.features.offline.replay import STATUS, replay
from mainspring.features.online.keys import key_packer
from mainspring.features.online.plan import compile_plan
from mainspring.features.online.rows import order_of, read_plain, write_plain
from mainspring.features.online.sampled import SampledPlan, Samples
from mainspring.features.view import Pick
from mainspring.server.features.replaying import ReplayWatch
from mainspring.serving.telemetry import Metrics
from thoroughly import rounds
from unit.features.online import test_corrections
from unit.features.online.test_corrections import LOOSE, NAMED, SECOND, Project

CUSTOMERS = ("a", "b", "e\u0301")


def clock():
    return time.time_ns() // 1000


class Shop(Project):
    """A project whose answers are sampled, in the present."""

    def __init__(self, place, source):
        super().__init__(place, source)
        self.samples = Samples(1.0)
        self.picks = [Pick(view, view.features) for view in self.views]
        self.plan = SampledPlan(compile_plan(self.store, self.picks), self.picks, self.samples)

    def ask(self, *names):
        for name in names or (*CUSTOMERS, "unknown"):
            self.plan.read_one({"customer": name}, clock())

    def replayed(self, **options):
        return replay(self.tables, self.samples.take(1 << 62, 100_000), **options)

    def verdicts(self, **options):
        return sorted({one.verdict for one in self.replayed(**options)})


@pytest.fixture(params=[LOOSE, NAMED], ids=["loose", "named"])
def shop(request, tmp_path, monkeypatch):
    monkeypatch.setattr(test_corrections, "START", clock() - 1000 * SECOND)
    made = Shop(tmp_path, request.param)
    yield made
    made.store.close()


_ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text()
    | st.binary()
    | st.dates()
    | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner),
    max_leaves=4,
)


@given(st.lists(_ANY, max_size=6), st.dictionaries(st.text(), _ANY, max_size=2))
def test_a_sample_comes_back_as_it_was_answered(values, keys):
    samples, at = Samples(1.0), clock()
    samples.put((), keys, at, values, {"v": "PRESENT"})
    (found,) = samples.take(at, 10)
    assert (repr(found.values), found.keys, found.at_us) == (repr(tuple(values)), keys, at)
    assert found.statuses == {"v": "PRESENT"}
    assert samples.take(at, 10) == []


@pytest.mark.parametrize("seed", range(rounds(1, 3)))
def test_whatever_comes_in_whatever_order_is_no_mismatch(shop, seed):
    draw = random.Random(seed)
    files = []
    for _ in range(25):
        customer, second = draw.choice(CUSTOMERS), draw.choice([100, 700, 980, 999, 1100])  # late, recent, to come
        what = draw.choice(["push", "push", "file", "correct", "ask"])
        # An event is of one customer and moment, and all of its versions come in one way.
        second += 0 if what == "push" else 1
        number = f"{customer}{second}"
        row = (customer, draw.choice([None, float("nan"), 1.5, -0.0, 7.0]), second, number)
        if what == "push":
            shop.push(row, now=clock())
        elif what != "ask":
            files = [*files, row] if what == "file" or not files else files[1:]
            shop.read_files(*files or [row], now=clock())
            if draw.random() < 0.3:
                shop.ask()  # in the log, and not yet online
            shop.publish(clock())
        shop.ask(draw.choice(CUSTOMERS), "unknown")
    found = shop.replayed()
    assert len(found) >= 50
    assert [one for one in found if one.verdict == "mismatch"] == []
    assert sum(one.verdict == "same" for one in found) > len(found) * 0.6


def test_a_row_that_was_not_yet_online_is_late_for_a_while(shop):
    shop.push(("a", 1.0, 900, "1"), now=clock())
    shop.read_files(("a", 2.0, 950, "2"), now=clock())
    shop.ask("a")
    assert shop.verdicts() == ["same"], "only the source's log has it"
    for view in shop.views:
        test_corrections.update_view(
            shop.tables, view, shop.source, test_corrections.newest(shop.tables, shop.source.log)
        )
    time.sleep(0.05)
    shop.ask("a")
    assert shop.verdicts() == ["late"]
    shop.ask("a")
    found = shop.replayed(grace_us=0)
    assert {one.verdict for one in found} == {"mismatch"}, "nobody has published it in time"
    assert {one.view: one.online["amount"] for one in found if one.view == "newest"} == {"newest": 1.0}
    assert {one.view: one.offline["amount"] for one in found if one.view == "newest"} == {"newest": 2.0}


def spoil(shop, name, amount):
    """Write a row online that the log does not have."""
    view = shop.views[1]
    key = key_packer(view.id, view.keys)({"customer": name})
    (there,) = shop.store.get_many([key])
    (row,) = read_plain(there)
    assert shop.store.swap(key, there, write_plain([row._replace(values=(amount,))]))
    assert order_of(there)[0] == row.event


def test_a_wrong_row_is_a_mismatch_and_says_what_differs(shop):
    shop.push(("a", 1.0, 900, "1"), ("b", 2.0, 900, "2"), now=clock())
    spoil(shop, "a", 3.0)
    shop.ask("a", "b")
    found = {(one.view, one.keys["customer"]): one for one in shop.replayed()}
    wrong = found.pop(("newest", "a"))
    assert (wrong.verdict, wrong.differing, wrong.online["amount"], wrong.offline["amount"]) == (
        "mismatch",
        ("amount",),
        3.0,
        1.0,
    )
    assert {one.verdict for one in found.values()} == {"same"}


def test_a_row_that_is_missing_online_is_a_mismatch_of_the_status(shop):
    shop.push(("a", 1.0, 900, "1"), now=clock())
    shop.store.drop(b"\x00\x00\x00\x02")
    time.sleep(0.05)
    shop.ask("a")
    (wrong,) = [one for one in shop.replayed(grace_us=0) if one.view == "newest"]
    assert (wrong.verdict, wrong.differing) == ("mismatch", ("amount", STATUS))


def test_answers_about_another_moment_and_beyond_the_bound_are_not_kept(shop, monkeypatch):
    shop.push(("a", 1.0, 900, "1"), now=clock())
    shop.plan.read_one({"customer": "a"}, clock() - 3600 * SECOND)
    assert shop.replayed() == []
    monkeypatch.setattr("mainspring.features.online.sampled._MOST", 3)
    shop.samples._held = type(shop.samples._held)(maxlen=3)
    shop.plan.read_many([{"customer": "a"}] * 5, [clock()] * 5)
    assert shop.samples.dropped == 2
    assert len(shop.samples.take(1 << 62, 10)) == 3


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_a_share_is_sampled(share):
    samples = Samples(share, random.Random(3).random)
    kept = sum(samples.due() for _ in range(100_000))
    assert kept == pytest.approx(100_000 * share, rel=0.1)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.05])
def test_rows_of_one_answer_are_sampled_as_answers_of_one_row_each(share):
    sizes = [random.Random(1).randrange(0, 40) for _ in range(50)]
    one_by_one, at_once = (Samples(share, random.Random(2).random) for _ in range(2))
    for size in sizes:
        assert list(at_once.due_among(size)) == [place for place in range(size) if one_by_one.due()]


def test_the_watch_counts_raises_an_alarm_and_ends_it(shop, tmp_path):
    catalog, metrics = open_catalog(SqliteSettings(), tmp_path), Metrics(tmp_path / "metrics.bin")
    services = SimpleNamespace(tables=shop.tables, catalog=catalog)
    shop.push(("a", 1.0, 900, "1"), now=clock())

    def watch():
        return ReplayWatch("shop", services, shop.samples, metrics, settled_us=0)

    def read(name, feature):
        return metrics.read(f"mainspring_feature_replay_{name}_total", app="shop", view="newest", feature=feature)

    shop.ask("a")
    assert watch().once() == 1
    assert (read("checked", "amount"), read("mismatch", "amount")) == (1, 0)
    assert catalog.alerts() == []
    spoil(shop, "a", 9.0)
    shop.ask("a", "a")
    working = watch()
    assert working.once() == 2
    assert (read("checked", "amount"), read("mismatch", "amount")) == (3, 2)
    (alarm,) = catalog.alerts(open_only=True)
    assert (alarm.monitor, alarm.kind, alarm.features) == (
        "feature_view/newest",
        "replay",
        ("feature_view/newest", "amount"),
    )
    assert (alarm.score, alarm.threshold) == (1.0, 0.0)
    (event,) = catalog.last_events(what="replay.mismatch")
    (shown, _) = event.data["answers"]
    assert (shown["keys"], shown["online"]["amount"], shown["offline"]["amount"]) == ({"customer": "a"}, "9.0", "1.0")
    spoil(shop, "a", 1.0)
    shop.ask(*["a"] * 30)
    later = watch()  # another process: it knows the alarm, and has no mismatch in its window
    later.once()
    assert catalog.alerts(open_only=True) == []
    catalog.close()


def test_keys_that_no_column_holds_are_passed_over(shop):
    shop.push(("a", 1.0, 900, "1"), now=clock())
    sample = (tuple(shop.picks), {"customer": 3}, clock(), [None] * 6, {"habits": "MISSING", "newest": "MISSING"})
    shop.samples.put(*sample)
    assert shop.replayed() == []
