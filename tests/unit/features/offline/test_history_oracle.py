"""Point-in-time answers against a loop over rows."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.declare.aggregate import (
    avg,
    count,
    distinct,
    first,
    highest,
    last,
    last_n,
    lowest,
    quantile,
    stddev,
    total,
    variance,
)
from mainspring.declare.frame import Frame
from mainspring.features.offline.history import history_of
from unit.features.offline import oracle
from unit.features.offline.tables import GRID, Folder, a_view, log_table, logs, spine_table, spines

RELAXED = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
WINDOWS = ("10m", "35m", "2h")


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def ask(folder, view, rows, questions, **options):
    folder.write(log_table(view, rows))
    options = {"time": "at", "as_known": True, "names": "short", "status": True, "versions": {}} | options
    return history_of(folder, [view], Frame(spine_table(questions)), **options).arrow()


@RELAXED
@given(
    rows=logs(),
    questions=spines(),
    as_known=st.booleans(),
    ttl=st.sampled_from([None, GRID, 3 * GRID]),
    ends=st.booleans(),
)
def test_last_is_what_a_loop_finds(folder, rows, questions, as_known, ttl, ends):
    view = a_view({"px": last("x"), "pn": last("n"), "ps": last("s")}, ttl=ttl, has_valid_to=ends)
    rows = rows if ends else [row.__class__(**(vars(row) | {"valid_to": None})) for row in rows]
    found = ask(folder, view, rows, questions, as_known=as_known)
    assert found.select(["note", "k", "at"]).equals(spine_table(questions))
    for answer, (key, t) in zip(found.to_pylist(), questions, strict=True):
        expected = oracle.newest(rows, key, t, as_known=as_known, ttl=ttl)
        assert answer["v__status"] == expected.status
        values = expected.values if expected.status == oracle.PRESENT else {}
        assert (answer["px"], answer["pn"], answer["ps"]) == (values.get("x"), values.get("n"), values.get("s"))


def window_features():
    features = {}
    for window in WINDOWS:
        features |= {
            f"rows_{window}": count(window),
            f"count_{window}": count("x", window),
            f"total_{window}": total("x", window),
            f"whole_{window}": total("n", window),
            f"avg_{window}": avg("x", window),
            f"mean_{window}": avg("n", window),
            f"var_{window}": variance("x", window),
            f"std_{window}": stddev("n", window),
            f"low_{window}": lowest("x", window),
            f"high_{window}": highest("n", window),
            f"least_{window}": lowest("s", window),
            f"most_{window}": highest("s", window),
            f"first_{window}": first("x", window),
            f"last_{window}": last("s", window),
            f"last_3_{window}": last_n("n", 3, window),
            f"last_2_{window}": last_n("s", 2, window),
            f"numbers_{window}": distinct("x", window),
            f"texts_{window}": distinct("s", window),
            f"median_{window}": quantile("x", 0.5, window),
            f"low_tenth_{window}": quantile("n", 0.1, window),
            f"greatest_{window}": quantile("x", 1, window),
        }
    return features


@pytest.mark.parametrize("kernel", ["ranges", "prefix"])
@RELAXED
@given(data=st.data(), questions=spines(), as_known=st.booleans(), versioned=st.booleans())
def test_windows_are_what_a_loop_finds(folder, monkeypatch, kernel, data, questions, as_known, versioned):
    monkeypatch.setattr("mainspring.features.windows.question._WORTH", 1e9 if kernel == "ranges" else -1)
    rows = data.draw(logs(versioned=versioned, specials=True))
    features = window_features()
    view = a_view(features, versioned=versioned)
    found = ask(folder, view, rows, questions, as_known=as_known, status=False).to_pylist()
    for answer, (key, t) in zip(found, questions, strict=True):
        for name, what in features.items():
            inside = oracle.in_window(rows, key, t, what.window_us, as_known=as_known, versioned=versioned)
            expected = oracle.aggregate(inside, what)
            assert oracle.same(answer[name], expected), (name, answer[name], expected, key, t)
