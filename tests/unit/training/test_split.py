"""Time-ordered splits: nothing is fitted that was not over, and known, before what is judged."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring import Frame
from mainspring.errors import DataError
from mainspring.training.sets import AT, KNOWN, LABEL
from mainspring.training.split import FEWEST, parts, split


def frame_of(at, lags):
    order = np.argsort(np.asarray(at), kind="stable")
    moments = np.asarray(at, dtype=np.int64)[order]
    known = moments + np.asarray(lags, dtype=np.int64)[order]
    kind = pa.timestamp("us", "UTC")
    rows = {AT: pa.array(moments, kind), KNOWN: pa.array(known, kind), LABEL: pa.array(np.arange(len(at), dtype=float))}
    return Frame(rows)


def column(frame, name):
    return np.asarray(frame.arrow().column(name).cast(pa.int64()))


def split_or_too_few(frame, holdout, gap):
    """The split; None when a part has too few rows by a count by hand, and then it is refused."""
    rows = sorted(zip(column(frame, AT).tolist(), column(frame, KNOWN).tolist(), strict=True))
    first = rows[min(int(len(rows) * (1 - holdout)), len(rows) - 1)][0]
    judged = sum(at >= first for at, _ in rows)
    fitted = sum(at < first - gap and known <= first - gap for at, known in rows)
    if min(judged, fitted) >= FEWEST:
        return split(frame, holdout, gap)
    with pytest.raises(DataError) as caught:
        split(frame, holdout, gap)
    assert f"{fitted} rows to learn from, {judged} to judge on" in caught.value.why
    return None


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 80)), min_size=2 * FEWEST, max_size=120),
    st.floats(0.05, 0.95),
    st.integers(0, 60),
)
def test_no_row_is_fitted_that_was_not_known_a_gap_before_the_first_judged_row(rows, holdout, gap):
    frame = frame_of([at for at, _ in rows], [lag for _, lag in rows])
    how = split_or_too_few(frame, holdout, gap)
    if how is None:
        return
    train, judged = parts(frame, how)
    first = column(judged, AT).min()
    assert column(train, AT).max() < first - gap + (gap == 0)
    assert column(train, KNOWN).max() <= first - gap
    assert (len(train), len(judged)) == (how.train, how.evaluate)


@given(st.lists(st.integers(0, 40), min_size=40, max_size=100), st.floats(0.2, 0.6), st.integers(0, 10))
def test_every_row_is_fitted_judged_or_left_out_for_a_reason(at, holdout, gap):
    frame = frame_of(at, [0] * len(at))
    how = split_or_too_few(frame, holdout, gap)
    if how is None:
        return
    train, judged = parts(frame, how)
    ours = set(train.arrow().column(LABEL).to_pylist()) | set(judged.arrow().column(LABEL).to_pylist())
    for number, moment in zip(frame.arrow().column(LABEL).to_pylist(), column(frame, AT), strict=True):
        assert (number in ours) == (moment >= how.from_us or moment < how.from_us - gap)
    assert len(judged) >= len(frame) * holdout - 1


def test_rows_of_one_moment_are_never_divided():
    frame = frame_of([0] * 30 + [5] * 30, [0] * 60)
    how = split(frame, 0.25, 0)
    assert (how.train, how.evaluate) == (30, 30)


def test_labels_known_too_late_leave_the_training_and_the_error_counts_them():
    at = list(range(100))
    how = split(frame_of(at, [15] * 100), 0.2, 0)
    assert how.train == 66
    with pytest.raises(DataError) as caught:
        split(frame_of(at, [1000] * 100), 0.2, 0)
    assert caught.value.code == "MS-2203"
    assert "80 older rows was not known" in caught.value.why


def test_a_handful_of_rows_is_too_few():
    with pytest.raises(DataError) as caught:
        split(frame_of(list(range(15)), [0] * 15), 0.2, 0)
    assert caught.value.code == "MS-2203"
    assert "12 to learn from, 3 to judge on" in caught.value.why.replace("rows ", "")


def test_a_gap_as_long_as_the_history_leaves_nothing():
    with pytest.raises(DataError):
        split(frame_of(list(range(100)), [0] * 100), 0.2, 1000)
