"""A frame's numbers, read from Arrow's buffers: what Arrow's own way gives, which imports pandas."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.declare.frame import Frame

KINDS = (pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_(), pa.decimal128(24, 2))
COLUMNS = st.tuples(
    st.sampled_from(KINDS),
    st.lists(st.lists(st.sampled_from([None, 0, 1]), max_size=20), max_size=3),
    st.integers(0, 25),
    st.integers(0, 60),
)


@given(COLUMNS)
def test_the_numbers_are_arrows_own(drawn: tuple[pa.DataType, list[list[int | None]], int, int]) -> None:
    kind, chunks, offset, length = drawn
    column = pa.chunked_array([pa.array(chunk, pa.int64()).cast(kind) for chunk in chunks], kind).slice(offset, length)
    wanted = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    found = Frame({"a": column})["a"].numpy()
    assert found.dtype == np.float64
    assert found.flags.writeable
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("values", [[1.5, None], [float("nan"), None]])
def test_a_null_and_what_is_no_number_are_both_nan(values: list[float | None]) -> None:
    assert np.isnan(Frame({"a": pa.array(values, pa.float64())})["a"].numpy()[1])


def test_they_are_read_without_pandas() -> None:
    code = (
        "import sys, pyarrow as pa; from mainspring.declare.frame import Frame\n"
        "table = pa.ipc.open_stream(sys.stdin.buffer).read_all()\n"
        "print(Frame(table).numpy().shape, 'pandas' in sys.modules)"
    )
    sink = pa.BufferOutputStream()
    table = pa.table({"a": [1, None], "b": [0.5, 1.5]})
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    done = subprocess.run(
        [sys.executable, "-c", code], input=sink.getvalue().to_pybytes(), capture_output=True, check=True
    )
    assert done.stdout.split(b"\n")[0] == b"(2, 2) False"
