"""The counting kernel is the brute-force count, and merging states is counting the rows together, to the bit."""

import itertools
import math
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.declare.record import Field
from mainspring.errors import DataError
from mainspring.monitoring.stats.columns import encoded, infer_kind, numbers, tallied, whole_numbers
from mainspring.monitoring.stats.count import count
from mainspring.monitoring.stats.hashes import hash_category
from mainspring.monitoring.stats.register import Watched, register
from mainspring.monitoring.stats.report import moments
from mainspring.monitoring.stats.state import UNIT, BlockState, empty_state, merge

AT = pa.array([0], pa.timestamp("us"))


def one_block(column, kind=None, rules=None):
    """The layout of a column that is its own reference."""
    column = column if isinstance(column, pa.Array) else pa.array(column)
    table = pa.table({"at": pa.array([0] * len(column), pa.timestamp("us")), "x": column})
    return register(table, "at", [Watched("x", kind, rules or Field())])["x"]


reals = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-3, 3).map(float),
    st.sampled_from([0.0, -0.0, 1e300, -1e300, math.inf, -math.inf, math.nan, 5e-324]),
)
columns = st.lists(st.none() | reals, max_size=60)


def to_units(value, layout):
    """Spans from the 0.1 % quantile, in the arithmetic of the machine, which is part of the definition."""
    with np.errstate(over="ignore"):
        return float((np.float64(value) - layout.low) * (1.0 / layout.span))


def brute(values, layout):
    """The state by looking at one value at a time."""
    found = [value for value in values if value is not None]
    finite = [value for value in found if math.isfinite(value)]
    edges = layout.edges.tolist()
    fine = [0] * (len(edges) + 1)
    for value in finite:
        fine[sum(edge < value for edge in edges)] += 1
    bounds = [0, *(place + 1 for place in layout.coarse.tolist()), len(fine)]
    spans = [to_units(value, layout) for value in finite]
    cut = [min(max(span, -32768.0), 32768.0) for span in spans]
    clipped = [min(max(span, -1.0), 2.0) for span in spans] if layout.high > layout.low else []
    return BlockState(
        layout.digest,
        tuple(sum(fine[a:b]) for a, b in itertools.pairwise(bounds)),
        tuple(fine),
        rows=len(values),
        n=len(values),
        n_null=len(values) - len(found),
        n_nan=sum(math.isnan(value) for value in found),
        n_inf=sum(math.isinf(value) for value in found),
        n_zero=finite.count(0.0),
        n_neg=sum(value < 0 for value in finite),
        n_unseen=sum(value < layout.vmin or value > layout.vmax for value in finite),
        n_invalid=sum(value < -1 or value > 2 for value in finite),
        vmin=min(finite, default=math.inf),
        vmax=max(finite, default=-math.inf),
        sum=sum(round(span * UNIT) for span in cut),
        sum2=sum(round(span * span * UNIT) for span in cut),
        csum=sum(round(span * UNIT) for span in clipped),
    )


@settings(max_examples=200, deadline=None)
@given(columns, columns)
def test_the_kernel_is_the_brute_force_count(reference, values):
    layout = one_block(pa.array(reference, pa.float64()), rules=Field(ge=-1, le=2)).layout()
    assert count(pa.array(values, pa.float64()), layout, fine=True) == brute(values, layout)


@settings(max_examples=60, deadline=None)
@given(columns, columns, st.lists(st.integers(0, 60), max_size=4), st.randoms())
def test_merging_parts_in_any_order_is_counting_them_together(reference, values, places, random):
    layout = one_block(pa.array(reference, pa.float64())).layout()
    whole = pa.array(values, pa.float64())
    bounds = [0, *sorted(min(place, len(values)) for place in places), len(values)]
    parts = [count(whole.slice(a, b - a), layout, fine=True) for a, b in itertools.pairwise(bounds)]
    random.shuffle(parts)
    nothing = empty_state(layout.digest, layout.cells, len(layout.edges) + 1)
    assert merge([*parts, nothing]) == count(whole, layout, fine=True)
    assert merge([merge(parts[:1]), merge(parts[1:])] if len(parts) > 1 else parts) == merge(parts)


def test_pieces_of_a_long_column_add_up_exactly():
    random = np.random.default_rng(0)
    values = random.standard_cauchy(100_000) * 1e3
    layout = one_block(values[:1000]).layout()
    pieces = [count(pa.array(part), layout, fine=True) for part in np.array_split(values, 7)]
    assert merge(pieces) == count(pa.array(values), layout, fine=True)
    assert count(pa.array(values[::-1].copy()), layout, fine=True) == merge(pieces)


words = st.lists(st.none() | st.sampled_from(["a", "b", "c", "", "é", "A" * 20]) | st.text(max_size=2), max_size=40)


@settings(max_examples=100, deadline=None)
@given(words, words)
def test_categories_are_the_brute_force_count(reference, values):
    feature = one_block(pa.array(reference, pa.string()))
    layout = feature.layout()
    tally = {word: reference.count(word) for word in reference if word is not None}
    common = sorted(tally, key=lambda word: (-tally[word], hash_category(word)))[:15]
    state = count(pa.array(values, pa.string()), layout)
    assert feature.names == tuple(common)
    rest = sum(word in tally and word not in common for word in values)
    assert state.counts == (*(values.count(word) for word in common), rest)
    assert state.n_null == values.count(None)
    assert state.n_unseen == sum(word is not None and word not in tally for word in values)
    assert count(pa.array(values, pa.string()).dictionary_encode(), layout) == state
    hashes = pa.array([None if word is None else hash_category(word) for word in values], pa.uint64())
    assert count(
        hashes, one_block(pa.array([hash_category(w) for w in tally], pa.uint64()), "hash").layout()
    ).n_unseen == (state.n_unseen)


@settings(max_examples=60, deadline=None)
@given(columns)
def test_bytes_give_the_state_back(values):
    layout = one_block(pa.array(values, pa.float64())).layout()
    state = count(pa.array(values, pa.float64()), layout, fine=True)
    assert BlockState.from_bytes(state.to_bytes()) == state


def test_a_state_with_every_cell_full_fits_in_16_kib():
    huge = 1 << 40
    state = BlockState(
        "0" * 16, (1 << 32,) * 31, ((1 << 32) - 1,) * 2047, *(huge,) * 9, -1e300, 1e300, 1 << 90, 1 << 120, -(1 << 80)
    )
    assert BlockState.from_bytes(state.to_bytes()) == state
    assert len(state.to_bytes()) <= 16_384


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x93\x09\xa1x\x90", b"\xc1", b"\x81\x01\x02"])
def test_damaged_bytes_are_refused(data):
    with pytest.raises(DataError, match="cannot be read") as caught:
        BlockState.from_bytes(data)
    assert caught.value.code == "MS-2403"


def test_states_of_two_grids_do_not_add_up():
    with pytest.raises(DataError, match="one grid") as caught:
        merge([empty_state("a", 3), empty_state("b", 3)])
    assert caught.value.code == "MS-2402"
    with pytest.raises(DataError):
        merge([])


def test_clipped_sum_is_the_mean_of_clipped_values_and_moments_are_numpys():
    values = np.random.default_rng(1).lognormal(size=20_000)
    feature = one_block(values)
    layout, state = feature.layout(), count(pa.array(values), feature.layout())
    expected = np.clip(values, 2 * layout.low - layout.high, 2 * layout.high - layout.low).mean()
    assert layout.low + state.csum / UNIT / state.finite * layout.span == pytest.approx(expected, rel=1e-9)
    assert moments(feature, state) == pytest.approx((values.mean(), values.std()), rel=1e-9)
    assert feature.sd == pytest.approx(np.clip(values, layout.low, layout.high).std(), rel=1e-12)


def test_fixed_point_sums_are_exact_rationals():
    values = [0.1, 0.2, 0.7, 123.456, -5.5]
    layout = one_block(values).layout()
    state = count(pa.array(values), layout)
    exact = sum(Fraction(round(Fraction(to_units(value, layout)) * UNIT)) for value in values)
    assert state.sum == exact


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None, 3], pa.int16()), [1.0, 3.0]),
        (pa.array([1.5, None], pa.float32()), [1.5]),
        (pa.array([Decimal("1.25"), None]), [1.25]),
        (pa.array([date(1970, 1, 3), None]), [2.0]),
        (pa.array([datetime(1970, 1, 1, 12, tzinfo=UTC)], pa.timestamp("ns", "Asia/Tokyo")), [0.5]),
        (pa.array(["abc", None, "é"]), [3.0, 1.0]),
        (pa.array([True, False, None]), [1.0, 0.0]),
        (pa.array([3, 4], pa.duration("s")), [3.0, 4.0]),
        (pa.array([5], pa.time32("s")), [5.0]),
        (pa.array([2.0, 3.0, 4.0]).slice(1, 1), [3.0]),
        (pa.array([7, 8]).dictionary_encode(), [7.0, 8.0]),
        (pa.chunked_array([[1.0], [2.0, None]]), [1.0, 2.0]),
        (pa.chunked_array([], pa.float64()), []),
        (pa.array([None, None], pa.float64()), []),
    ],
)
def test_every_type_becomes_numbers_and_nulls(column, expected):
    found = numbers(column)
    assert found.values.tolist() == expected
    assert found.nulls == column.null_count


def test_kinds_follow_types_and_nested_types_are_refused():
    assert infer_kind("x", pa.bool_()) == "category"
    assert infer_kind("x", pa.dictionary(pa.int8(), pa.string())) == "category"
    assert infer_kind("x", pa.date32()) == "number"
    with pytest.raises(DataError, match="cannot be watched") as caught:
        infer_kind("x", pa.list_(pa.float64()))
    assert caught.value.code == "MS-2404"


def test_a_number_and_its_text_are_two_categories():
    assert (
        len({hash_category(1), hash_category("1"), hash_category(True), hash_category(b"1"), hash_category(1.0)}) == 5
    )
    assert hash_category(np.int16(1)) == hash_category(1)
    layout = one_block(pa.array([1, 2, 3]), "category").layout()
    assert count(pa.array(["1", "2"]), layout).n_unseen == 2
    assert count(pa.array([1, 2]), layout).n_unseen == 0


def test_dictionaries_of_several_chunks_are_one():
    column = pa.chunked_array(
        [pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", None, "c"]).dictionary_encode()]
    )
    codes = encoded(column)
    assert codes.words.values[:3] == ["a", "b", "c"]
    assert codes.codes.tolist() == [0, 1, 1, 3, 2]
    words, tally = tallied(column)
    assert dict(zip(words.values, tally.counts.tolist(), strict=True)) == {"a": 1, "b": 2, "c": 1}
    assert tally.nulls == 1
    assert tallied(pa.nulls(2))[1].nulls == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.integers(0, 40), max_size=80), st.integers(0, 80), st.integers(0, 12))
def test_a_slice_is_tallied_alike_however_long_the_vocabulary(values, start, length):
    codes = encoded(pa.array(values, pa.int64()))
    part = values[start : start + length]
    tally = codes.tally(start, start + length)
    found = dict(zip((codes.words.values[i] for i in tally.places.tolist()), tally.counts.tolist(), strict=True))
    assert found == {value: part.count(value) for value in part if value is not None}
    assert tally.nulls == part.count(None)


def test_rules_of_the_field_are_counted():
    layout = one_block(["a", "b"], rules=Field(one_of=("a", "b"), matches="[a-c]")).layout()
    assert count(pa.array(["a", "c", "z", None]), layout).n_invalid == 2
    layout = one_block([1, 2], rules=Field(one_of=(1, 2))).layout()
    assert layout.kind == "category"
    assert count(pa.array([1, 2, 3]), layout).n_invalid == 1
    layout = one_block([1.0, 2.0], rules=Field(ge=0, le=10)).layout()
    assert count(pa.array([-1.0, 0.0, 10.0, 11.0, math.nan]), layout).n_invalid == 2


def test_sampled_rows_count_as_often_as_they_stand_for():
    values = pa.array([1.0, 2.0, None, 4.0])
    layout = one_block(values).layout()
    state = count(values, layout, fine=True, weight=[1, 10, 10, 1])
    whole = count(pa.array([1.0, 4.0] + [2.0, None] * 10), layout, fine=True)
    assert (state.rows, whole.rows) == (4, 22)
    assert BlockState(**{**{f: getattr(whole, f) for f in BlockState.__struct_fields__}, "rows": 4}) == state
    categories = one_block(["a", "b"]).layout()
    assert sum(count(pa.array(["a", "b"]), categories, weight=[3, 4]).counts) == 7


def test_a_row_without_a_time_is_refused():
    with pytest.raises(DataError, match="no event time") as caught:
        whole_numbers(pa.array([1, None], pa.timestamp("us")))
    assert caught.value.code == "MS-2406"


def test_counting_imports_neither_pandas_nor_numba_nor_scipy():
    # Arrow's own `pa.array` imports pandas, so the table comes as bytes: what is left is what counting imports.
    table = pa.table({"at": pa.array([9, 1, 1], pa.date32()), "x": [1.5, None, 2.0], "c": ["a", None, "b"]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    program = (
        "import sys, pyarrow as pa, pyarrow.ipc\n"
        "from mainspring.monitoring.stats.register import register, count_table\n"
        "from mainspring.monitoring.stats.reference import reference\n"
        "from mainspring.monitoring.stats.decide import thresholds\n"
        "from mainspring.monitoring.stats.count import count\n"
        "table = pa.ipc.open_stream(sys.stdin.buffer).read_all()\n"
        "baseline = register(table, 'at', ['x', 'c'])\n"
        "count_table(table, 'at', baseline)\n"
        "count(table['x'], baseline['x'].layout(), weight=[1, 2, 1])\n"
        "thresholds(reference(baseline, 'x'), 0.1)\n"
        "print(sorted({'pandas', 'numba', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], input=sink.getvalue(), capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
